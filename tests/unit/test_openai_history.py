"""The messages of a conversation as chat completions."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signalbox.anthropic.json_edit import Body
from signalbox.anthropic.translated_reader import AnswerContext
from signalbox.openai.dialects import DIALECTS, Dialect
from signalbox.openai.request import to_chat, untranslatable
from signalbox.openai.translator import ChatTranslator
from signalbox.routing.translator import UntranslatableError
from tests.support.chat_bodies import BODIES, CALL, FIELDS, MESSAGES, SAID, SYSTEM, USER
from tests.support.chat_streams import CHAT
from tests.support.chat_validator import check_order, check_types, plain

ROWS = st.sampled_from(list(DIALECTS.values()))
MODELS = st.sampled_from(
    ["some-model", "gemini-3.8-flash", "anthropic/claude-x", "gpt-5.6", "devstral-2", "kimi-k3"]
)
TURNS = st.tuples(
    st.lists(USER | SYSTEM, min_size=1, max_size=3),
    st.builds(
        lambda said, calls: {
            "role": "assistant",
            "content": [{"type": "text", "text": "Yes."}, *said, *calls],
        },
        st.lists(SAID, max_size=2),
        st.lists(CALL, max_size=3),
    ),
)


def _body(body: dict[str, Any], dialect: Dialect, model: str) -> bytes:
    raw = json.dumps(body).encode()
    return to_chat(Body.parse(raw), model=model, dialect=dialect, provider="provider", session=None).body


@pytest.mark.slow
@settings(max_examples=3 * settings.default.max_examples)
@given(BODIES, ROWS, MODELS)
def test_any_body_becomes_one_that_the_provider_takes(body, dialect, model):
    try:
        sent = _body(body, dialect, model)
    except UntranslatableError:
        assert untranslatable(Body.parse(json.dumps(body).encode()), dialect)
        return
    chat = json.loads(sent)
    check_order(chat, dialect)
    check_types(plain(chat), strict=dialect.name == "openai")


@pytest.mark.slow
@settings(max_examples=3 * settings.default.max_examples)
@given(MESSAGES, ROWS, MODELS)
def test_any_history_can_be_translated(messages, dialect, model):
    """Where no tools are offered nothing can be refused."""
    chat = json.loads(_body({"messages": messages}, dialect, model))
    check_order(chat, dialect)
    check_types(plain(chat), strict=dialect.name == "openai")


@pytest.mark.slow
@given(
    st.lists(TURNS, min_size=1, max_size=5),
    ROWS,
    MODELS,
    st.fixed_dictionaries({}, optional={"system": FIELDS["system"]}),
)
def test_a_conversation_that_grows_keeps_its_beginning(turns, dialect, model, others):
    """Byte by byte, since providers keep their caches by it."""
    messages: list[dict[str, Any]] = []
    before = b""
    for asked, answer in turns:
        messages += asked
        sent = _body({"messages": _uncached(messages), **others}, dialect, model)
        assert sent.startswith(before)
        before = _up_to_the_last_message(sent)
        messages.append(answer)


def _up_to_the_last_message(sent: bytes) -> bytes:
    messages = Body.parse(sent).span("messages")
    assert messages is not None
    return sent[: messages.end - 1]


def _uncached(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without `cache_control`, which moves on with every request."""
    text = json.dumps(messages).replace('"cache_control"', '"was_cached"')
    found: list[dict[str, Any]] = json.loads(text)
    return found


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=lambda row: row.name)
def test_many_calls_at_once_take_no_time(dialect):
    calls = [{"type": "tool_use", "id": f"toolu_{n}", "name": "Read", "input": {}} for n in range(2000)]
    results = [
        {"type": "tool_result", "tool_use_id": f"toolu_{n}", "content": "ok"} for n in reversed(range(2000))
    ]
    messages = [{"role": "assistant", "content": calls}, {"role": "user", "content": results}]
    chat = json.loads(_body({"messages": messages}, dialect, "m"))
    assert sum(message.get("content") == "ok" for message in chat["messages"]) == 2000


def test_a_system_message_after_user_text_needs_no_message_after_it():
    messages = [{"role": "user", "content": "Hi"}, {"role": "system", "content": "Tools have changed."}]
    sent = json.loads(_body({"messages": messages}, DIALECTS["openai"], "m"))
    assert sent["messages"] == messages


READ = {"name": "Read", "input_schema": {"type": "object", "properties": {"path": {"type": "string"}}}}
DETAILS = [{"type": "reasoning.text", "text": "I look.", "signature": "ZmFrZQ==", "format": "x", "index": 0}]


def _call(id: str, **more: Any) -> dict[str, Any]:
    return {
        "id": id,
        "type": "function",
        "function": {"name": "Read", "arguments": '{"path":"ü","n":1}'},
        **more,
    }


def _signed(signature: str) -> dict[str, Any]:
    return {"extra_content": {"google": {"thought_signature": signature}}}


GIVEN: list[tuple[str, str, dict[str, Any]]] = [
    (
        "openai",
        "gpt-5.2",
        {"content": "Looking.", "tool_calls": [_call("call_0fypS1hVX8"), _call("call_Kd8q2nPzL1")]},
    ),
    ("openai", "gpt-5.2", {"content": None, "tool_calls": [_call("call_0")]}),
    ("mistral", "mistral-large-4", {"content": None, "tool_calls": [_call("aB3dE5gH7")]}),
    ("composer", "composer-2.5", {"content": None, "tool_calls": [_call("call_0123456789abcdef01_shell_1")]}),
    (
        "gemini",
        "gemini-3.8-flash",
        {"content": None, "tool_calls": [_call("function-call-1", **_signed("c2ln+/=")), _call("b")]},
    ),
    (
        "kimi",
        "kimi-k3",
        {
            "reasoning_content": "I look.",
            "tool_calls": [_call("functions.Read:0"), _call("functions.Read:1")],
        },
    ),
    (
        "glm",
        "glm-5.3",
        {"content": "Looking.", "reasoning_content": "I look.", "tool_calls": [_call("call_-758")]},
    ),
    ("deepseek", "deepseek-v4-pro", {"content": "Done.", "reasoning_content": "I look."}),
    ("vllm", "qwen3", {"content": "Done.", "reasoning": "I look."}),
    ("generic", "some-model", {"content": "Done.", "reasoning": "I look."}),
    ("openrouter", "anthropic/claude-opus-4.6", {"content": "Done.", "reasoning_details": DETAILS}),
    ("gemini", "gemini-flash-latest", {"content": None, "tool_calls": [_call("b", **_signed("c2ln+/="))]}),
    ("gemini", "gemini-2.5-pro", {"content": None, "tool_calls": [_call("b", **_signed("c2ln+/="))]}),
    (
        "generic",
        "smart",
        {"content": None, "tool_calls": [_call("b", **_signed("c2ln+/=")), _call("c", **_signed("Zm9v"))]},
    ),
    ("generic", "smart", {"content": None, "tool_calls": [_call("call_1a__thought__" + "Zm9v" * 99)]}),
    ("mistral", "smart", {"content": None, "tool_calls": [_call("call_1a__thought__" + "Zm9v+/=" * 99)]}),
]
ENCRYPTED = [
    {"type": "reasoning.summary", "summary": "I look.", "format": "x", "index": 0},
    {"type": "reasoning.encrypted", "data": "ZmFrZQ==", "id": "call_0", "format": "x", "index": 1},
]


@pytest.mark.parametrize(
    ("dialect", "model", "message"), GIVEN, ids=lambda value: value if isinstance(value, str) else ""
)
def test_an_answer_is_sent_back_unchanged(dialect, model, message):
    history: list[dict[str, Any]] = [{"role": "user", "content": "Go"}]
    given = {"role": "assistant", **message}
    history += _kept(history, dialect, model, given)
    chat = json.loads(_request(history, dialect, model).request.body)
    (back,) = [one for one in chat["messages"] if one["role"] == "assistant"]
    assert back == given
    results = [one["tool_call_id"] for one in chat["messages"] if one["role"] == "tool"]
    assert results == [call["id"] for call in message.get("tool_calls", [])]


@pytest.mark.parametrize("thinks", [False, True], ids=["thinking-off", "thinking-on"])
@pytest.mark.parametrize(
    ("dialect", "model"),
    [("openrouter", "google/gemini-3.5-flash"), ("generic", "smart"), ("openai", "smart")],
)
def test_encrypted_reasoning_goes_back_with_its_call_whether_thinking_is_shown_or_not(dialect, model, thinks):
    given = {
        "role": "assistant",
        "content": "I look.",
        "reasoning_details": ENCRYPTED,
        "tool_calls": [_call("call_0"), _call("call_1")],
    }
    history = [{"role": "user", "content": "Go"}]
    for _ in range(2):
        history += _kept(history, dialect, model, given, thinks=thinks)
    assert thinks == any(block["type"] == "thinking" for block in history[1]["content"])
    first, second = _sent(history, dialect, model, thinks=thinks)
    assert first == given
    (again, *_), (_, encrypted) = second["tool_calls"], second["reasoning_details"]
    assert encrypted == ENCRYPTED[1] | {"id": again["id"]} != ENCRYPTED[1]


@pytest.mark.parametrize("dialect", ["generic", "gemini"])
def test_what_a_call_carries_is_sent_to_its_own_provider_only(dialect):
    given = {
        "role": "assistant",
        "content": None,
        "reasoning_details": ENCRYPTED,
        "tool_calls": [_call("call_" + "9" * 99, **_signed("c2ln"))],
    }
    history = [{"role": "user", "content": "Go"}]
    history += _kept(history, dialect, "gemini-3.5-flash", given, thinks=False)
    (told,) = _sent(history, dialect, "gemini-3.5-flash", provider="another")
    excused = _signed("skip_thought_signature_validator") if dialect == "gemini" else {}
    (call,) = told.pop("tool_calls")
    assert told == {"role": "assistant", "content": None}
    assert call == _call(call["id"], **excused)
    assert len(call["id"]) <= 40


@pytest.mark.parametrize("name", ["state_details_after_the_call", "state_signature_after_its_call"])
def test_details_after_their_call_are_sent_back_too(name):
    answer = _request([], "generic", "m", thinks=False).reader("", "", request_id="req_fake")
    raw = CHAT.case(name).sent
    content = json.loads(answer.feed(raw) + answer.end())["content"]
    (back,) = _sent([{"role": "assistant", "content": content}], "generic", "m")
    details = [{"type": "reasoning.encrypted", "data": "ZW5j", "id": "tool_0_Read"}]
    carried = (back.get("reasoning_details"), back["tool_calls"][0].get("extra_content"))
    if name.startswith("state_details"):
        assert [one.items() >= two.items() for one, two in zip(carried[0], details, strict=True)] == [True]
    else:
        assert carried == (None, {"google": {"thought_signature": "Zm9v+/=="}})


def test_ids_that_a_provider_counts_anew_stay_apart():
    history: list[dict[str, Any]] = [{"role": "user", "content": "Go"}]
    for _ in range(2):
        history += _kept(
            history, "generic", "m", {"role": "assistant", "content": None, "tool_calls": [_call("call_0")]}
        )
    messages = json.loads(_request(history, "generic", "m").request.body)["messages"]
    asked = [call["id"] for sent in messages for call in sent.get("tool_calls", [])]
    assert asked[0] == "call_0"
    assert len(set(asked)) == 2
    assert asked == [sent["tool_call_id"] for sent in messages if sent["role"] == "tool"]


def _request(
    history: list[dict[str, Any]],
    dialect: str,
    model: str,
    *,
    thinks: bool = True,
    provider: str = "provider",
) -> ChatTranslator:
    body = {"messages": history, "tools": [READ], "max_tokens": 100}
    body |= {"thinking": {"type": "adaptive"}} if thinks else {}
    row = DIALECTS[dialect]
    request = to_chat(
        Body.parse(json.dumps(body).encode()), model=model, dialect=row, provider=provider, session=None
    )
    context = AnswerContext(
        provider=provider,
        model=model,
        seed=f"seed{len(history)}",
        names=request.names,
        wants_stream=request.stream,
        shows_thinking=request.shows_thinking,
    )
    return ChatTranslator(context, request, row)


def _sent(history: list[dict[str, Any]], dialect: str, model: str, **given: Any) -> list[dict[str, Any]]:
    """The assistant's messages as they go back."""
    chat = json.loads(_request(history, dialect, model, **given).request.body)
    return [one for one in chat["messages"] if one["role"] == "assistant"]


def _kept(
    history: list[dict[str, Any]], dialect: str, model: str, message: dict[str, Any], *, thinks: bool = True
) -> list[dict[str, Any]]:
    """The turn that a client keeps of the answer, and the results of its calls."""
    finish = "tool_calls" if "tool_calls" in message else "stop"
    whole = {"id": "x", "choices": [{"index": 0, "message": message, "finish_reason": finish}]}
    answer = _request(history, dialect, model, thinks=thinks).reader(
        "application/json", "", request_id="req_fake"
    )
    content = json.loads(answer.feed(json.dumps(whole).encode()) + answer.end())["content"]
    results = [
        {"type": "tool_result", "tool_use_id": block["id"], "content": "ok"}
        for block in content
        if block["type"] == "tool_use"
    ]
    return [{"role": "assistant", "content": content}, {"role": "user", "content": results or "Next"}]
