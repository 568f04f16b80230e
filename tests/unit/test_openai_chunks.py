"""Chunks of chat completions as steps; the golden files show the spellings of each provider."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.anthropic.sse import Event, parse_event
from signalbox.openai.chunks import (
    ChoiceStarted,
    EndOfStream,
    ErrorChunk,
    Finish,
    Foreign,
    Fragment,
    FullMessage,
    Malformed,
    Reasoning,
    Refusal,
    TextPiece,
    UsageReported,
    chunk_steps,
    parse_chunk,
    parse_object,
    plain_text,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


def _strange(*names: str, inner: st.SearchStrategy[Any] = JSON) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=dict.fromkeys(names, inner | JSON))


CALLS = _strange("index", "id", "function", "extra_content", inner=_strange("name", "arguments", "google"))
DELTAS = _strange(
    "content", "refusal", "reasoning", "reasoning_content", "reasoning_details", "tool_calls",
    "function_call",
    inner=st.lists(CALLS, max_size=3) | st.text(max_size=5),
)  # fmt: skip
CHUNKS = _strange(
    "choices", "usage", "error", "model", "object", "base_resp",
    inner=st.lists(_strange("index", "delta", "message", "finish_reason", "usage", inner=DELTAS), max_size=2),
)  # fmt: skip


def _steps(value: dict[str, Any]) -> list[Any]:
    return list(chunk_steps(value, b"raw"))


def _delta(**delta: Any) -> list[Any]:
    return _steps({"choices": [{"index": 0, "delta": delta}]})


@pytest.mark.slow
@given(CHUNKS)
def test_no_chunk_raises_whatever_its_fields_hold(chunk):
    for step in _steps(chunk):
        for name in step.__struct_fields__:
            told = getattr(step, name)
            assert isinstance(told, str | int | bytes | dict | tuple | None)


def test_the_steps_of_one_chunk_are_in_order():
    delta = {"content": "a", "reasoning": "b", "refusal": "c", "tool_calls": [{"index": 1, "id": "d"}]}
    chunk = {"model": "m", "choices": [{"delta": delta, "finish_reason": "STOP"}], "usage": {"x": 1}}
    assert _steps(chunk | {"error": None}) == [
        ChoiceStarted("m"),
        Reasoning("b", "reasoning"),
        TextPiece("a"),
        Refusal("c"),
        Fragment(1, "d"),
        Finish("stop"),
        UsageReported({"x": 1}),
    ]


@pytest.mark.parametrize(
    ("delta", "step"),
    [
        ({"reasoning_content": "a", "reasoning": "b"}, Reasoning("a", "reasoning_content")),
        ({"reasoning_content": "", "reasoning": "b"}, Reasoning("b", "reasoning")),
        ({"reasoning_details": "a"}, Reasoning("a", "reasoning_details")),
        ({"reasoning_details": [{"summary": "a"}]}, Reasoning("a", "reasoning_details", ({"summary": "a"},))),
        ({"content": [{"type": "thinking", "thinking": "a"}]}, Reasoning("a")),
        ({"tool_calls": [{"index": True}]}, Fragment()),
        ({"tool_calls": [{"function": {"arguments": {"a": "ä"}}}]}, Fragment(arguments='{"a": "ä"}')),
        ({"function_call": {"name": "a"}}, Fragment(-1, name="a")),
        ({"extra_content": {"google": {"thought_signature": "a"}}}, Fragment(signature="a")),
    ],
)
def test_a_delta_gives_its_steps(delta, step):
    assert _delta(**delta) == [ChoiceStarted(""), step]


@pytest.mark.parametrize("delta", [{"content": ""}, {"content": None}, {"content": 7}, {"reasoning": ""}])
def test_empty_fields_give_no_steps(delta):
    assert _delta(**delta) == [ChoiceStarted("")]


@pytest.mark.parametrize("message", [{"role": "assistant"}, {"role": "assistant", "content": ""}])
def test_an_empty_message_gives_no_step(message):
    choice = {"index": 0, "delta": {"content": "a"}, "message": message}
    assert _steps({"choices": [choice]}) == [ChoiceStarted(""), TextPiece("a")]


def test_calls_of_a_whole_answer_are_counted():
    calls = [{"function": {"name": "a"}}, {"function": {"name": "a"}}]
    told = _steps({"choices": [{"message": {"tool_calls": calls}}]})
    assert told == [ChoiceStarted(""), FullMessage((Fragment(0, name="a"), Fragment(1, name="a")))]


@pytest.mark.parametrize(
    "error",
    [
        {"error": {"message": "x"}},
        {"error": "x"},
        {"object": "error", "message": "x"},
        {"type": "error"},
        {"choices": None, "error_message": "x"},
        {"code": "InvalidParameter", "message": "x"},
        {"choices": [], "code": 429, "message": "x"},
        {"code": 401, "msg": "x", "success": False},
        {"errors": [{"message": "x"}]},
        {"type": "message_start", "message": {}},
        {"type": "response.created", "response": {}},
        {"base_resp": {"status_code": 1008}},
        {"detail": "x"},
        {"choices": [{"finish_reason": "error", "error": {"message": "x"}}]},
    ],
)
def test_error_chunks_keep_their_bytes(error):
    assert _steps(error) == [ErrorChunk(b"raw")]


@pytest.mark.parametrize(
    "fine",
    [
        {"error": None},
        {"error": ""},
        {"base_resp": {"status_code": 0}},
        {"choices": [], "detail": "x"},
        {"message": "queued"},
        {"code": 0, "msg": "success"},
        {"choices": [{"delta": {}}], "code": 1, "message": "x"},
        {"model": "m", "message": {"role": "assistant", "content": "Hi"}, "done": True},
    ],
)
def test_other_objects_are_not_errors(fine):
    assert not any(isinstance(step, ErrorChunk) for step in _steps(fine))


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (Event("", b"[DONE]"), [EndOfStream()]),
        (Event("", b" [DONE] "), [EndOfStream()]),
        (Event("", b""), []),
        (Event("", b"ping"), []),
        (Event("", b"no error"), []),
        (Event("", b"[ERROR] out of memory"), [ErrorChunk(b"[ERROR] out of memory")]),
        (Event("", b'"Error: busy"'), [ErrorChunk(b'"Error: busy"')]),
        (Event("", b'{"progress": 3}'), [Foreign(b'{"progress": 3}', has_message=False)]),
        (Event("", b"[]"), []),
        (Event("", b"{"), [Malformed()]),
        (Event("", b"[{"), [Malformed()]),
        (Event("error", b"broken"), [ErrorChunk(b"broken")]),
        (Event("error", b""), [ErrorChunk(b"")]),
        (Event("message", b'{"usage":{"a":1}}'), [UsageReported({"a": 1})]),
        (Event("", b'[{"error":"x"}]'), [ErrorChunk(b'[{"error":"x"}]')]),
    ],
)
def test_events_are_read_by_their_data(event, told):
    assert parse_chunk(event) == told


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b'{"a":"\\ud83d"}', {"a": "\ud83d"}),
        (b'{"a":"\xed\xa0\xbd"}', {"a": "\ud83d"}),
        (b'{"a":"\xff"}', {"a": "\ufffd"}),
        (b'{"a":1e999}', {"a": float("inf")}),
        (b'{"a":"b\nc"}', {"a": "b\nc"}),
        (b"7", {}),
        (b"{'a': 1}", None),
        (b'{"a":' * 9999, None),
        (b"", None),
    ],
)
def test_small_faults_are_passed_over(data, value):
    assert parse_object(data) == value


@given(JSON)
def test_json_is_read_as_it_is(value):
    assert parse_object(json.dumps({"a": value}).encode()) == {"a": value}


PLAIN = '{"id":"c","object":"chat.completion.chunk","model":"m","choices":[%s],"usage":null}'


@pytest.mark.parametrize(
    "choice",
    [
        '{"index":0,"delta":{"content":"Grüße \\u2713"},"finish_reason":null,"logprobs":null}',
        '{"delta":{"role":"assistant","content":"a","reasoning_content":null,"tool_calls":[]}}',
        '{"index":0,"delta":{"content":""}}',
    ],
)
def test_a_piece_of_text_is_read_as_all_chunks_are(choice):
    block = f"data: {PLAIN % choice}".encode()
    texts = [step.text for step in parse_chunk(parse_event(block)) if isinstance(step, TextPiece)]
    assert plain_text(block) == "".join(texts)


@pytest.mark.parametrize(
    "chunk",
    [
        PLAIN % '{"index":1,"delta":{"content":"a"}}',
        PLAIN % '{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}',
        PLAIN % '{"index":0,"delta":{"content":"a","reasoning":"b"}}',
        PLAIN % '{"index":0,"delta":{"content":"a","tool_calls":[{"index":0}]}}',
        PLAIN % '{"index":0,"delta":{"content":[{"type":"text","text":"a"}]}}',
        PLAIN % '{"index":0,"delta":{"content":"a"},"error":{"message":"no"}}',
        PLAIN % '{"index":0,"delta":{"content":"a"}},{"index":0,"delta":{"content":"b"}}',
        PLAIN % '{"index":0,"delta":{"content":"\\ud800"}}',
        '{"object":"error","choices":[{"delta":{"content":"a"}}]}',
        '{"error_msg":"no","choices":[{"delta":{"content":"a"}}]}',
        '{"choices":[{"delta":{"content":"a"}}],"usage":{"prompt_tokens":1}}',
        "[DONE]",
        '{"choices":[{"delta":{"content":"a"}}]}\ndata: {}',
    ],
)
def test_what_is_more_than_a_piece_of_text_is_not_taken_for_one(chunk):
    assert plain_text(f"data: {chunk}".encode()) is None
