"""The machine that makes Anthropic's events of steps."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signalbox.translate import stream as module
from signalbox.translate.chunks import (
    Begun,
    Broken,
    Done,
    Fault,
    Finish,
    Fragment,
    Reasoning,
    Refusal,
    Spent,
    Step,
    Text,
)
from signalbox.translate.signature import payload_of
from signalbox.translate.stream import Stream
from tests.wellformed import check_events


def _stream(**changed: Any) -> Stream:
    given = {
        "names": {},
        "shows_thinking": True,
        "signed": False,
        "provider": "fake",
        "model": "m",
        "seed": "S",
        "request_id": "req_fake",
    }
    return Stream(**(given | changed))


def _run(*steps: Step, **changed: Any) -> tuple[Stream, list[dict[str, Any]]]:
    one = _stream(**changed)
    one.take(steps)
    one.end()
    events = one.taken()
    check_events(events, is_cut=bool(one.cut))
    return one, events


def _said(events: list[dict[str, Any]], kind: str) -> str:
    return "".join(event["delta"].get(kind, "") for event in events if "delta" in event)


WORDS = st.text(st.sampled_from("ab <>/\n"), max_size=5).filter(lambda text: "<" not in text[:1])
FRAGMENTS = st.builds(
    Fragment,
    st.none() | st.integers(0, 2),
    st.sampled_from(["", "", "call_1a", "call_2b"]),
    st.sampled_from(["", "Read", "Bash"]),
    st.sampled_from(["", "{", "}", "{}", '"a"', ":", "null", " ", "x", '{"a":"b"}', '"{}"']),
    st.sampled_from(["", "", "sig"]),
)
STEPS = st.lists(
    st.builds(Text, WORDS)
    | st.builds(Reasoning, WORDS, st.just("reasoning"))
    | st.builds(Refusal, WORDS)
    | FRAGMENTS
    | st.builds(Finish, st.sampled_from(["stop", "length", "tool_calls", "network_error"]))
    | st.sampled_from([Begun("m"), Spent({"prompt_tokens": 3}), Fault(b"{}"), Broken(), Done()])
    | st.just(Reasoning("", "reasoning_details", ({"type": "reasoning.encrypted", "data": "ZW5j"},))),
    max_size=20,
)


@settings(deadline=None)
@given(STEPS, st.booleans(), st.booleans())
def test_any_order_of_steps_makes_a_well_formed_stream(steps, shows, signed):
    one, events = _run(*steps, shows_thinking=shows, signed=signed)
    if not one.cut and one.error is None:
        assert events[-1]["type"] == "message_stop"


PIECES = st.lists(st.tuples(st.sampled_from(["text", "thinking"]), st.text("abc", min_size=1)), max_size=8)
OBJECTS = st.dictionaries(st.text(max_size=4), st.text(max_size=9) | st.integers(), max_size=3).map(
    json.dumps
)


@settings(deadline=None)
@given(PIECES, st.lists(OBJECTS, max_size=3), st.data())
def test_nothing_is_lost_in_any_interleaving(pieces, objects, data):
    """Text, thinking and the fragments of calls, each in its own order."""
    steps = [[Text(text) if kind == "text" else Reasoning(text) for kind, text in pieces]]
    for n, value in enumerate(objects):
        at = data.draw(st.integers(0, len(value)))
        steps.append([Fragment(n, f"call_{n}a1b", f"Tool{n}", value[:at]), Fragment(n, arguments=value[at:])])
    order: list[Step] = []
    while any(steps):
        order.append(data.draw(st.sampled_from([left for left in steps if left])).pop(0))
    one, events = _run(*order, Finish("stop"))
    if not pieces and not objects:
        assert one.error is not None
        return
    assert _said(events, "text") == "".join(text for kind, text in pieces if kind == "text")
    assert _said(events, "thinking") == "".join(text for kind, text in pieces if kind == "thinking")
    started = [event["content_block"] for event in events if "content_block" in event]
    names = [block["name"] for block in started if block["type"] == "tool_use"]
    assert sorted(names) == [f"Tool{n}" for n in range(len(objects))]
    for n, value in enumerate(objects):
        index = started.index(next(block for block in started if block.get("name") == f"Tool{n}"))
        assert _said([event for event in events if event.get("index") == index], "partial_json") == value
    assert events[-2]["delta"]["stop_reason"] == ("tool_use" if objects else "end_turn")


@pytest.mark.parametrize(
    "steps",
    [
        [Text("x" * 60)] * 2,
        [Reasoning("x" * 60)] * 2,
        [Refusal("x" * 60)] * 2,
        [Reasoning("", details=({"data": "x" * 120},))],
        [Fragment(0, "call_1a", "Read", '{"a":"' + "x" * 60), Fragment(0, arguments="x" * 60)],
        [Fragment(0, "call_1a", "Read", '{"a":'), Text("x" * 60), Text("x" * 60)],
    ],
)
def test_what_is_kept_is_bounded(monkeypatch, steps):
    monkeypatch.setattr(module, "LARGEST", 100)
    monkeypatch.setattr(module, "_EACH", 0)
    one, _ = _run(*steps, Finish("stop"))
    assert one.cut == "the answer is too large"


def test_many_empty_pieces_are_bounded_too(monkeypatch):
    monkeypatch.setattr(module, "LARGEST", 1000)
    assert _run(*[Fragment(0, "call_1a", "Read", "")] * 20)[0].cut == "the answer is too large"


def test_it_tells_when_it_has_ended_and_when_nothing_of_it_is_to_come():
    def told(*steps: Step) -> tuple[bool, bool]:
        one = _stream()
        one.take(steps)
        return one.finished, one.over

    said, finish, spent = Text("x"), Finish("stop"), Spent({"prompt_tokens": 3})
    assert told(said) == told(said, spent) == told(said, finish, said) == (False, False)
    assert told(said, finish) == told(said, finish, Text("")) == (True, False)
    assert told(said, finish, spent) == told(said, Done()) == told(Fault(b"{}")) == (True, True)


def test_details_of_reasoning_are_kept_as_they_would_be_in_a_whole_answer():
    def details(**fields: Any) -> Reasoning:
        return Reasoning(fields.get("text", ""), "reasoning", ({"index": 0, **fields},))

    _, events = _run(
        details(type="reasoning.text", text="a", signature=None),
        details(type="reasoning.text", text="b"),
        details(type="reasoning.text", signature="c2ln"),
        details(type="reasoning.encrypted", data="ZW5j"),
        details(type="reasoning.summary", summary=None),
        details(type="reasoning.summary", summary="x"),
        details(type="reasoning.summary", summary="y"),
        Reasoning("", "reasoning", ({"type": "reasoning.summary", "summary": "c"},)),
        Reasoning("", "reasoning", ({"type": "reasoning.summary", "summary": "d"},)),
        Text("x"),
        details(type="reasoning.text", text="e"),
        Finish("stop"),
    )
    signatures = [event["delta"]["signature"] for event in events if "signature" in event.get("delta", {})]
    assert [payload_of(signature, "fake")["reasoning_details"] for signature in signatures] == [
        [
            {"index": 0, "type": "reasoning.text", "text": "ab", "signature": "c2ln"},
            {"index": 0, "type": "reasoning.encrypted", "data": "ZW5j"},
            {"index": 0, "type": "reasoning.summary", "summary": "xy"},
            {"type": "reasoning.summary", "summary": "c"},
            {"type": "reasoning.summary", "summary": "d"},
        ],
        [{"index": 0, "type": "reasoning.text", "text": "e"}],
    ]


def test_text_after_a_call_comes_after_it():
    call = Fragment(0, "call_1a2b3c", "Now")
    for signed, parts in ((False, [call]), (True, [Fragment(0, "call_1a2b3c", "Now", "{}")])):
        _, events = _run(*parts, Text("x"), Finish("stop"), signed=signed)
        started = [event["content_block"]["type"] for event in events if "content_block" in event]
        assert started == ["tool_use", "text"]


def test_the_last_usage_that_tells_something_counts():
    told = [{"prompt_tokens": 9}, {"prompt_tokens": 3, "completion_tokens": 2}, {"prompt_tokens": 0}]
    _, events = _run(Text("x"), *map(Spent, told), Done())
    assert events[-2]["usage"] == {
        "input_tokens": 3,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": 2,
    }


def test_the_model_is_the_providers_word():
    assert _run(Begun("told"), Text("x"), Done())[1][0]["message"]["model"] == "told"
    assert _run(Begun(""), Text("x"), Done())[1][0]["message"]["model"] == "m"


def test_a_finish_reason_never_seen_before_is_told_at_debug(caplog):
    caplog.set_level("DEBUG", "signalbox")
    for reason in ("stop", "eosFound", "sk-fake-key-for-tests " + "x" * 999):
        _run(Text("x"), Finish(reason.lower()), secrets=("sk-fake-key-for-tests",))
    first, second = (record.getMessage() for record in caplog.records)
    assert first == "fake: unknown finish_reason 'eosfound', taken for end_turn"
    assert second.startswith("fake: unknown finish_reason '*** xxx")
    assert len(second) < 200
