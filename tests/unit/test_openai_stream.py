"""The machine that makes Anthropic's events of steps."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.anthropic.answer_facts import AnswerFacts
from signalbox.anthropic.api import TOKEN_FIELDS
from signalbox.anthropic.translated_reader import AnswerContext
from signalbox.openai.chunks import (
    ChoiceStarted,
    EndOfStream,
    ErrorChunk,
    Finish,
    Fragment,
    Malformed,
    Reasoning,
    Refusal,
    Step,
    TextPiece,
    UsageReported,
)
from signalbox.openai.finish import fault_of, finish_meaning, is_known, stop_reason, stop_sequence
from signalbox.openai.ids import payload_of
from signalbox.openai.stream import ChatStream, ThinkTags, chat_usage
from tests.support.request_validator import check_events


def _stream(**changed: Any) -> ChatStream:
    given = {
        "names": {},
        "shows_thinking": True,
        "wants_stream": False,
        "provider": "fake",
        "model": "m",
        "seed": "S",
        "request_id": "req_fake",
    }
    given |= {name: changed.pop(name) for name in list(changed) if name in AnswerContext.__struct_fields__}
    return ChatStream(AnswerFacts(), AnswerContext(**given), **changed)


def _run(*steps: Step, **changed: Any) -> tuple[ChatStream, list[dict[str, Any]]]:
    one = _stream(**changed)
    one.take(steps)
    one.end()
    events = one.drain()
    check_events(events, is_cut=bool(one.facts.cut))
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
    st.builds(TextPiece, WORDS)
    | st.builds(Reasoning, WORDS, st.just("reasoning"))
    | st.builds(Refusal, WORDS)
    | FRAGMENTS
    | st.builds(Finish, st.sampled_from(["stop", "length", "tool_calls", "network_error"]))
    | st.sampled_from(
        [
            ChoiceStarted("m"),
            UsageReported({"prompt_tokens": 3}),
            ErrorChunk(b"{}"),
            Malformed(),
            EndOfStream(),
        ]
    )
    | st.just(Reasoning("", "reasoning_details", ({"type": "reasoning.encrypted", "data": "ZW5j"},))),
    max_size=20,
)


@given(STEPS, st.booleans(), st.booleans())
def test_any_order_of_steps_makes_a_well_formed_stream(steps, shows, signed):
    one, events = _run(*steps, shows_thinking=shows, signed=signed)
    if not one.facts.cut and one.facts.provider_error is None:
        assert events[-1]["type"] == "message_stop"


PIECES = st.lists(st.tuples(st.sampled_from(["text", "thinking"]), st.text("abc", min_size=1)), max_size=8)
OBJECTS = st.dictionaries(st.text(max_size=4), st.text(max_size=9) | st.integers(), max_size=3).map(
    json.dumps
)


@given(PIECES, st.lists(OBJECTS, max_size=3), st.data())
def test_nothing_is_lost_in_any_interleaving(pieces, objects, data):
    """Text, thinking and the fragments of calls, each in its own order."""
    steps = [[TextPiece(text) if kind == "text" else Reasoning(text) for kind, text in pieces]]
    for n, value in enumerate(objects):
        at = data.draw(st.integers(0, len(value)))
        steps.append([Fragment(n, f"call_{n}a1b", f"Tool{n}", value[:at]), Fragment(n, arguments=value[at:])])
    order: list[Step] = []
    while any(steps):
        order.append(data.draw(st.sampled_from([left for left in steps if left])).pop(0))
    one, events = _run(*order, Finish("stop"))
    if not pieces and not objects:
        assert one.facts.provider_error is not None
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
        [TextPiece("x" * 60)] * 2,
        [Reasoning("x" * 60)] * 2,
        [Refusal("x" * 60)] * 2,
        [Reasoning("", details=({"data": "x" * 220},))],
        [Fragment(0, "call_1a", "Read", '{"a":"' + "x" * 60), Fragment(0, arguments="x" * 60)],
        [Fragment(0, "call_1a", "Read", '{"a":'), TextPiece("x" * 60), TextPiece("x" * 60)],
    ],
)
def test_memory_is_bounded(steps):
    one, _ = _run(*steps, Finish("stop"), largest=300)
    assert one.facts.cut == "the answer is too large"


def test_many_empty_pieces_are_bounded_too():
    one, _ = _run(*[Fragment(0, "call_1a", "Read", "")] * 20, largest=1000)
    assert one.facts.cut == "the answer is too large"


def test_finished_and_over():
    def told(*steps: Step) -> tuple[bool, bool]:
        one = _stream()
        one.take(steps)
        return one.finished, one.over

    said, finish, spent = TextPiece("x"), Finish("stop"), UsageReported({"prompt_tokens": 3})
    assert told(said) == told(said, spent) == told(said, finish, said) == (False, False)
    assert told(said, finish) == told(said, finish, TextPiece("")) == (True, False)
    assert told(said, finish, spent) == told(said, EndOfStream()) == told(ErrorChunk(b"{}")) == (True, True)


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
        TextPiece("x"),
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
        _, events = _run(*parts, TextPiece("x"), Finish("stop"), signed=signed)
        started = [event["content_block"]["type"] for event in events if "content_block" in event]
        assert started == ["tool_use", "text"]


def test_the_last_usage_with_counts_is_used():
    told = [{"prompt_tokens": 9}, {"prompt_tokens": 3, "completion_tokens": 2}, {"prompt_tokens": 0}]
    _, events = _run(TextPiece("x"), *map(UsageReported, told), EndOfStream())
    assert events[-2]["usage"] == {
        "input_tokens": 3,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": 2,
    }


def test_the_model_is_the_providers_word():
    assert _run(ChoiceStarted("told"), TextPiece("x"), EndOfStream())[1][0]["message"]["model"] == "told"
    assert _run(ChoiceStarted(""), TextPiece("x"), EndOfStream())[1][0]["message"]["model"] == "m"


def test_a_finish_reason_never_seen_before_is_reported_at_debug(caplog):
    caplog.set_level("DEBUG", "signalbox")
    for reason in ("stop", "eosFound", "sk-fake-key-for-tests " + "x" * 999):
        _run(TextPiece("x"), Finish(reason.lower()), secrets=("sk-fake-key-for-tests",))
    first, second = (record.getMessage() for record in caplog.records)
    assert first == "fake: unknown finish_reason 'eosfound', read as end_turn"
    assert second.startswith("fake: unknown finish_reason '*** xxx")
    assert len(second) < 200


# why it ended; the golden files `finish_*` show whole streams


@pytest.mark.parametrize(
    ("finish", "plain", "called"),
    [
        ("stop", "end_turn", "tool_use"),
        ("tool_calls", "end_turn", "tool_use"),
        ("function_call", "end_turn", "tool_use"),
        ("eos_token", "end_turn", "tool_use"),
        ("", "end_turn", "tool_use"),
        ("length", "max_tokens", "max_tokens"),
        ("content_filter", "refusal", "refusal"),
        ("sensitive", "refusal", "refusal"),
        ("model_context_window_exceeded", "model_context_window_exceeded", "model_context_window_exceeded"),
    ],
)
def test_a_stop_is_recognized_by_what_was_written_and_by_its_reason(finish, plain, called):
    assert stop_reason(finish, called=False, refused=False) == plain
    assert stop_reason(finish, called=True, refused=False) == called
    assert stop_reason(finish, called=False, refused=True) == "refusal"
    assert fault_of(finish) == ""


@pytest.mark.parametrize("finish", ["network_error", "error", "aborted", "insufficient_system_resource"])
def test_some_reasons_are_no_stops(finish):
    assert fault_of(finish)


@pytest.mark.parametrize(
    ("finish", "told"),
    [
        ("user_cancelled", "api_error"),
        ("engine_crashed", "api_error"),
        ("error_limit", "api_error"),
        ("preempted", "api_error"),
        ("out_of_memory", "api_error"),
        ("quota_exceeded", "api_error"),
        ("request_timed_out", "timeout_error"),
        ("no_capacity", "overloaded_error"),
        ("image_safety", "refusal"),
        ("reached_context_limit", "model_context_window_exceeded"),
        ("max_new_tokens", "max_tokens"),
        ("stop_token", "end_turn"),
        ("eosfound", "end_turn"),
        ("finished", "end_turn"),
        ("unknown", "end_turn"),
    ],
)
def test_a_reason_never_seen_before_is_judged_by_the_words_in_it(finish, told):
    assert not is_known(finish)
    assert finish_meaning(finish) == told


@pytest.mark.parametrize(
    ("finish", "told", "asked", "met"),
    [
        ("stop", "END", ("three", "END"), "END"),
        ("stop", "end_turn", ("END",), ""),
        ("stop", "", ("END",), ""),
        ("stop_sequence", "", ("END",), "END"),
        ("stop_sequence", "", ("END", "three"), ""),
    ],
)
def test_a_stop_sequence_is_named_where_it_is_one_of_those_asked_for(finish, told, asked, met):
    assert stop_sequence(finish, told, asked) == met


# what it cost; the golden files `usage_*` show each provider's spelling

COUNT = st.integers(0, 10**6)
NONSENSE = st.none() | st.text() | st.floats() | st.integers() | st.booleans() | st.lists(st.integers())


@given(prompt=COUNT, cached=COUNT, written=COUNT, completion=COUNT)
def test_input_tokens_exclude_cached_ones(prompt, cached, written, completion):
    details = {"cached_tokens": cached, "cache_write_tokens": written}
    usage = chat_usage(
        {"prompt_tokens": prompt, "completion_tokens": completion, "prompt_tokens_details": details}
    )
    if usage:
        assert usage["input_tokens"] == max(prompt - cached - written, 0)
        assert usage["cache_read_input_tokens"] == cached
        assert usage["cache_creation_input_tokens"] == written
        assert usage["output_tokens"] == completion


@given(prompt=st.integers(1, 100), cached=st.integers(101, 200))
def test_anthropics_names_may_mean_that_the_prompt_is_without_the_cache(prompt, cached):
    usage = chat_usage({"prompt_tokens": prompt, "cache_read_input_tokens": cached})
    assert usage["input_tokens"] == prompt
    written = chat_usage({"prompt_tokens": prompt, "cache_creation_input_tokens": cached})
    assert written["input_tokens"] == prompt
    within = chat_usage({"prompt_tokens": cached, "cache_read_input_tokens": prompt})
    assert within["input_tokens"] == cached - prompt


@pytest.mark.parametrize(("total", "output"), [(120, 20), (150, 50), (140, 20), (None, 20)])
def test_reasoning_that_is_counted_apart_is_added(total, output):
    told = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": total}
    assert (
        chat_usage(told | {"completion_tokens_details": {"reasoning_tokens": 30}})["output_tokens"] == output
    )


@pytest.mark.parametrize("details", [None, {}, {"reasoning_tokens": 0}])
def test_tokens_in_the_total_alone_are_reasoning(details):
    told = {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 513}
    assert chat_usage({**told, "completion_tokens_details": details})["output_tokens"] == 503
    assert chat_usage(told | {"total_tokens": 12})["output_tokens"] == 3


def test_cached_tokens_that_only_the_total_counts_are_no_output():
    told = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 118, "cached_tokens": 100}
    assert chat_usage(told)["output_tokens"] == 7


def test_tokens_of_the_cache_in_the_total_are_no_reasoning():
    told = {"prompt_tokens": 100, "completion_tokens": 3, "total_tokens": 143, "cache_read_input_tokens": 40}
    assert chat_usage(told)["output_tokens"] == 3


@given(st.dictionaries(st.sampled_from(
    ["prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "prompt_tokens_details",
     "completion_tokens_details", "prompt_cache_hit_tokens", "cache_read_input_tokens"]
), NONSENSE))  # fmt: skip
def test_nonsense_costs_nothing(told):
    usage = chat_usage(told)
    assert usage == {} or list(usage) == [TOKEN_FIELDS[0], TOKEN_FIELDS[2], TOKEN_FIELDS[3], TOKEN_FIELDS[1]]
    assert all(0 <= count < 10**13 for count in usage.values())


# thinking that stands in the text

CASES = [
    ("Hello", "", "Hello"),
    ("  Hello <think>no</think>", "", "  Hello <think>no</think>"),
    ("<think>Hm.</think>Hello", "Hm.", "Hello"),
    ("\n <think>\nHm.</think>\n\n Hello \n", "\nHm.", "Hello \n"),
    ("<thought>a</think>b</thought>c", "a</think>b", "c"),
    ("<thinking>a</thinking>", "a", ""),
    ("<think></think><think>b</think>", "", "<think>b</think>"),
    ("<think>a < b </ c", "a < b </ c", ""),
    ("<think>a</thin", "a</thin", ""),
    ("<thin air", "", "<thin air"),
    ("<thi", "", "<thi"),
    ("   ", "", "   "),
    ("", "", ""),
]


def _told(pieces: list[str]) -> tuple[str, str]:
    tags = ThinkTags()
    said = [one for piece in pieces for one in tags.feed(piece)] + tags.end()
    assert all(one.text for one in said)
    return tuple(
        "".join(one.text for one in said if isinstance(one, kind)) for kind in (Reasoning, TextPiece)
    )


@pytest.mark.parametrize(("text", "thinking", "said"), CASES)
def test_only_what_begins_with_a_tag_is_thinking(text, thinking, said):
    assert _told([text]) == (thinking, said)


@given(st.sampled_from(CASES), st.lists(st.integers(0, 40)))
def test_it_does_not_depend_on_how_the_text_is_cut(case, cuts):
    text, *told = case
    bounds = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    assert _told([text[a:b] for a, b in pairwise(bounds)]) == tuple(told)


def test_no_more_is_held_back_than_the_head_of_a_tag():
    tags = ThinkTags()
    assert tags.feed("<think>a</") == [Reasoning("a")]
    assert tags.feed("b") == [Reasoning("</b")]
    assert tags.feed("</think>c") == [TextPiece("c")]


def test_white_space_does_not_wait_for_ever():
    tags = ThinkTags()
    assert tags.feed(" " * 500) == [TextPiece(" " * 500)]


def test_text_ends_where_something_else_begins():
    tags = ThinkTags()
    assert tags.feed("<thi") == []
    assert tags.end() == [TextPiece("<thi")]
    assert tags.feed("<think>") == [TextPiece("<think>")]
