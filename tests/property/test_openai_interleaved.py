"""Whatever a provider of chat completions may legally send, in any order and cut anywhere, is told whole."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from typing import Any

from hypothesis import event, given
from hypothesis import strategies as st

from tests.support.chat import DONE, chunk
from tests.support.chat_streams import CHAT
from tests.support.golden_streams import Result
from tests.support.request_validator import check_events

type Delta = dict[str, Any]

ERROR = b'data: {"error": {"message": "out of memory", "code": 503}}\n\n'
NOISE = st.sampled_from(
    [
        b": keep-alive\n\n",
        b"event: ping\ndata: {}\n\n",
        b'data: {"choices": []}\n\n',
        b'data: {"choices": [], "prompt_filter_results": [{}]}\r\n\r\n',
        b'data: {"choices": [{"index": 0, "content_filter_offsets": {}, "finish_reason": null}]}\n\n',
        b'data: {"choices": [{"index": 1, "delta": {"content": "of another choice"}}]}\n\n',
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": None, "reasoning_content": None, "tool_calls": None, "refusal": None}),
        chunk({"reasoning_details": [], "tool_calls": []}, usage=None),
    ]
)
STYLES = [
    "plain",
    "repeats",
    "same index",
    "no index",
    "ids alone",
    "no ids",
    "no ids or index",
    "nameless head",
]
IN_TURNS = ["plain", "repeats", "ids alone", "nameless head"]
"""Styles in which each fragment tells whose it is, so that those of several calls may mix."""
OBJECTS = st.dictionaries(st.text(max_size=4), st.text(max_size=9) | st.integers(), max_size=3)
WORDS = st.lists(st.text("ab c\n", min_size=1, max_size=5), max_size=4)


@dataclass
class Said:
    """What a provider sends, and what a client should have of it."""

    wire: bytes
    text: str
    thinking: str
    calls: list[tuple[str, Any]]
    usage: int
    broke: bool


def fragments(style: str, n: int, name: str, cuts: list[str]) -> Iterator[Delta]:
    """The deltas of one call, whose arguments come in these pieces."""
    for place, text in enumerate(cuts):
        is_first, entry, function = place == 0, {}, {"arguments": text}
        if style not in ("no index", "ids alone", "no ids or index"):
            entry["index"] = 0 if style == "same index" else n
        if style in ("repeats", "ids alone") or (is_first and style not in ("no ids", "no ids or index")):
            entry |= {"id": f"call_{n}x9y8z7", "type": "function"}
        if style == "nameless head" and is_first:
            yield {"tool_calls": [entry | {"function": None}]}
            entry = {"index": n}
        if style == "repeats" or is_first:
            function["name"] = name
        yield {"tool_calls": [entry | {"function": function}]}


@st.composite
def answers(draw: st.DrawFn) -> Said:
    style = draw(st.sampled_from(STYLES))
    key = draw(st.sampled_from(["reasoning_content", "reasoning", "thinking"]))
    values = draw(st.lists(OBJECTS, max_size=3))
    queues: list[list[Delta]] = []
    for n, value in enumerate(values):
        text = json.dumps(value)
        bounds = sorted({0, len(text), *draw(st.lists(st.integers(0, len(text)), max_size=3))})
        cuts = [text[a:b] for a, b in pairwise(bounds)]
        queues.append(list(fragments(style, n, f"Tool{n}", cuts)))
    if style not in IN_TURNS:
        queues = [[delta for queue in queues for delta in queue]]
    words, thoughts = draw(WORDS), draw(WORDS)
    queues += [[{"content": word} for word in words], [{key: word} for word in thoughts]]
    pieces: list[bytes] = []
    usage = 0
    while any(queues):
        pieces += draw(st.lists(NOISE, max_size=1))
        more: dict[str, Any] = {}
        if draw(st.booleans()):
            usage += 1
            more = {"usage": {"prompt_tokens": 9, "completion_tokens": usage}}
        delta = draw(st.sampled_from([queue for queue in queues if queue])).pop(0)
        pieces.append(chunk(delta, **more))
    for finish in draw(st.lists(st.sampled_from(["stop", "tool_calls"]), min_size=1, max_size=3)):
        pieces.append(chunk({}, finish))
    if draw(st.booleans()):
        usage += 1
        pieces.append(
            b'data: {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": %d}}\n\n' % usage
        )
    pieces += draw(st.sampled_from([[], [DONE], [DONE, chunk({"content": "too late"})]]))
    is_broken = draw(st.integers(0, 4)) == 0
    if is_broken:
        at = draw(st.integers(0, len(pieces)))
        pieces[at:] = [ERROR, *pieces[at:]] if DONE not in pieces[:at] else pieces[at:]
        is_broken = ERROR in pieces
    event(style)
    calls = [(f"Tool{n}", value) for n, value in enumerate(values)]
    return Said(b"".join(pieces), "".join(words), "".join(thoughts), calls, usage, is_broken)


def cut(wire: bytes, cuts: list[int]) -> Iterator[bytes]:
    bounds = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]
    return (wire[a:b] for a, b in pairwise(bounds))


def told(result: Result) -> Said:
    """What a client has of an answer."""
    texts: dict[str, str] = {"text_delta": "", "thinking_delta": ""}
    calls: list[tuple[str, str]] = []
    usage = 0
    for one in result.events():
        match one:
            case {"content_block": {"type": "tool_use", "name": name}}:
                calls.append((name, ""))
            case {"delta": {"type": "input_json_delta", "partial_json": text}}:
                calls[-1] = (calls[-1][0], calls[-1][1] + text)
            case {"delta": {"type": "signature_delta"}}:
                pass
            case {"type": "content_block_delta", "delta": {"type": kind, **rest}}:
                texts[kind] += "".join(rest.values())
            case {"type": "message_delta", "usage": counted}:
                usage = counted["output_tokens"]
    is_broken = result.error is not None
    whole = calls if is_broken else [(name, json.loads(text)) for name, text in calls]
    return Said(b"", texts["text_delta"], texts["thinking_delta"], whole, usage, is_broken)


def unspaced(text: str) -> str:
    """White space that stands alone between calls or thinking makes no text of its own."""
    return "".join(text.split())


@given(answers(), st.lists(st.integers(0, 4000), max_size=12))
def test_all_that_a_provider_says_is_written_in_whatever_order_it_comes(said, cuts):
    result = CHAT.fed(cut(said.wire, cuts))
    events = result.events()
    assert not result.cut
    check_events(events)
    client = told(result)
    if said.broke:
        assert events[-1]["type"] == "error"
        assert unspaced(said.text).startswith(unspaced(client.text))
        assert said.thinking.startswith(client.thinking)
        return
    is_empty = not (said.text.strip() or said.thinking or said.calls)
    assert client.broke is is_empty
    if is_empty:
        return
    assert unspaced(client.text) == unspaced(said.text)
    assert (client.thinking, sorted(client.calls, key=itemgetter(0))) == (said.thinking, said.calls)
    assert client.usage == said.usage or said.usage == 0
    assert events[-2]["delta"]["stop_reason"] == ("tool_use" if said.calls else "end_turn")


@given(answers(), st.lists(st.integers(0, 4000), max_size=12))
def test_a_whole_message_says_what_the_stream_says(said, cuts):
    streamed, whole = CHAT.fed([said.wire]), CHAT.fed(cut(said.wire, cuts), streams=False)
    assert (whole.error, whole.cut) == (streamed.error, streamed.cut)
    if whole.error is None:
        content = whole.message()["content"]
        assert [(one["name"], one["input"]) for one in content if one["type"] == "tool_use"] == told(
            streamed
        ).calls
        text = "".join(one["text"] for one in content if one["type"] == "text")
        assert text == told(streamed).text


KEYS = st.sampled_from(
    [
        "choices", "delta", "message", "content", "tool_calls", "function", "arguments", "name", "id",
        "index", "finish_reason", "usage", "prompt_tokens", "prompt_tokens_details", "cached_tokens", "error",
        "code", "reasoning", "reasoning_details", "thinking", "text", "extra_content", "google",
        "thought_signature", "function_call", "base_resp", "status_code", "refusal", "type", "model",
    ]
)  # fmt: skip
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=3)
    | st.sampled_from(["{}", "stop"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
DELTAS = st.fixed_dictionaries(
    {
        "choices": st.lists(
            st.fixed_dictionaries({"delta": st.dictionaries(KEYS, ANYTHING, max_size=4)}), max_size=2
        )
    },
    optional={"usage": ANYTHING, "error": ANYTHING},
)


@given(st.lists(ANYTHING | DELTAS, max_size=6), st.booleans())
def test_no_field_of_any_type_is_a_fault_of_ours(values, streams):
    wire = [b"data: %b\n\n" % json.dumps(value).encode() for value in values]
    result = CHAT.fed([*wire, DONE], streams=streams)
    assert "while it was translated" not in result.cut
    if streams:
        check_events(result.events(), is_cut=bool(result.cut))
