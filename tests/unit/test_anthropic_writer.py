"""The one writer of Anthropic's events."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.anthropic.answer_facts import AnswerFacts
from signalbox.anthropic.api import Usage
from signalbox.anthropic.writer import MessageBuilder, Writer, encode_events, warmed_up
from tests.support.golden_streams import events_of
from tests.support.request_validator import check_events

ACTS = st.sampled_from(
    [
        ("begin", "m"),
        ("text", "a"),
        ("text", ""),
        ("thinking", "b"),
        ("thinking", ""),
        ("call", "id", "name"),
        ("arguments", "{}"),
        ("arguments", ""),
        ("close",),
    ]
)
ENDS = st.sampled_from(
    [("stop", "end_turn", {"output_tokens": 1}), ("error", "api_error", "broken", "req_fake")]
)


def _written(acts: list[tuple]) -> list[dict]:
    writer = Writer("msg_fake", "m", lambda text: f"signed {text}")
    for name, *values in acts:
        getattr(writer, name)(*values)
    return writer.drain()


@given(st.lists(ACTS), ENDS, st.lists(ACTS | ENDS))
def test_any_order_of_calls_writes_a_legal_stream(acts, end, after):
    events = _written([*acts, end, *after])
    check_events(events)
    assert events_of(encode_events(events)) == events


def test_thinking_is_signed_when_its_block_closes():
    events = _written(
        [("begin", "m"), ("thinking", "a"), ("thinking", "b"), ("text", "c"), ("thinking", "d"), ("close",)]
    )
    signed = [event["delta"]["signature"] for event in events if "signature" in event.get("delta", {})]
    assert signed == ["signed ab", "signed d"]


def test_taken_events_are_not_returned_again():
    writer = Writer("msg_fake", "m", str)
    writer.begin("m")
    assert len(writer.drain()) == 1
    assert writer.drain() == []


@pytest.mark.parametrize(("characters", "tokens"), [(0, 0), (1, 1), (4, 1), (5, 2)])
def test_missing_output_tokens_are_estimated(characters, tokens):
    writer = Writer("msg_fake", "m", str)
    writer.stop("end_turn", {}, characters=characters)
    assert writer.drain()[-2]["usage"] == {"output_tokens": tokens}


NOTHING_READ = {"input_tokens": 0, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}


@pytest.mark.parametrize(
    ("reported", "shown"),
    [
        ({"output_tokens": 7}, {"output_tokens": 7}),
        (NOTHING_READ | {"output_tokens": 7}, NOTHING_READ | {"input_tokens": 90, "output_tokens": 7}),
        ({"input_tokens": 5, "output_tokens": 0}, {"input_tokens": 5, "output_tokens": 2}),
        (
            NOTHING_READ | {"cache_read_input_tokens": 5},
            NOTHING_READ | {"cache_read_input_tokens": 5, "output_tokens": 2},
        ),
    ],
)
def test_an_estimate_is_shown_and_counts_nowhere(reported, shown):
    facts = AnswerFacts()
    writer = Writer("msg_fake", "m", str, facts=facts, estimate=lambda: 90)
    writer.stop("end_turn", reported, characters=8)
    start, delta, _ = writer.drain()
    assert start["message"]["usage"]["input_tokens"] == 90
    assert delta["usage"] == shown
    counted = Usage()
    counted.take(reported)
    assert facts.usage == counted


# messages put together from events; the golden files `whole*` show them


def _input(arguments: str) -> bytes:
    message = MessageBuilder()
    delta = {"type": "input_json_delta", "partial_json": arguments}
    message.add(
        [
            {"type": "message_start", "message": {}},
            {"type": "content_block_start", "content_block": {"type": "tool_use", "input": {}}},
            {"type": "content_block_delta", "delta": delta},
            {"type": "content_block_stop"},
        ]
    )
    return message.encoded().partition(b'"input":')[2].removesuffix(b"}]}")


@pytest.mark.parametrize("arguments", ['{"n": 1.50, "a":"\\u00e4"}', "{ }", '{"z":1,"a":[2]}'])
def test_arguments_stay_as_they_were_written(arguments):
    assert _input(arguments) == arguments.encode()


@pytest.mark.parametrize("arguments", ["", '{"a":"b', "[1]", '"a"'])
def test_cut_arguments_become_an_empty_object(arguments):
    assert _input(arguments) == b"{}"


def test_a_request_that_only_warms_the_cache_has_an_empty_stream():
    said, kind = warmed_up("glm-4.7", 12, seed="0", stream=True)
    told = events_of(said)
    check_events(told)
    assert kind.startswith("text/event-stream")
    assert [one["type"] for one in told] == ["message_start", "message_delta", "message_stop"]
    assert told[1]["delta"]["stop_reason"] == "max_tokens"
