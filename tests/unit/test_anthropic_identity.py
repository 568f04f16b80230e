"""Answers in the Messages format, put into the form that was asked for."""

import gzip
import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.anthropic.identity import IdentityTranslator
from signalbox.anthropic.reader import MessagesReader
from tests.support.answers import error_json, event
from tests.support.request_validator import check_events
from tests.support.strict_providers import streamed

TYPES = {True: "text/event-stream", False: "application/json"}
CITED = {"type": "text", "text": "b", "citations": [{"type": "page_location", "cited_text": "c"}]}
USE = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "q"}}
FOUND = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
UNSIGNED = {"type": "thinking", "thinking": "unsigned"}
BLOCKS = [
    {"type": "text", "text": "a"},
    {"type": "text", "text": ""},
    CITED,
    {"type": "thinking", "thinking": "t", "signature": "s"},
    {"type": "thinking", "thinking": "", "signature": "s"},
    UNSIGNED,
    {"type": "redacted_thinking", "data": "d"},
    {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {"path": "/é", "n": [1, 2.5, None]}},
    {"type": "tool_use", "id": "toolu_2", "name": "Now", "input": {}},
    USE,
    FOUND,
    {"type": "never_seen", "x": {"y": 1}},
]


def message(blocks: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {
        "id": "msg_fake",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": blocks,
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 5, "cache_read_input_tokens": 3, "output_tokens": 7},
        **more,
    }


MESSAGES = st.builds(
    message,
    st.lists(st.sampled_from([block for block in BLOCKS if block != UNSIGNED]), max_size=5),
    stop_reason=st.sampled_from(["tool_use", "end_turn", "refusal"]),
    container=st.sampled_from([None, {"id": "c"}]),
    stop_details=st.just({"type": "refusal"}) | st.none(),
    context_management=st.just({"applied_edits": []}),
)
CUTS = st.lists(st.integers(0, 3000), max_size=8)


def reshaped(
    raw: bytes, *, to_stream: bool, head: str = "", coding: str = "", cuts: Any = ()
) -> tuple[Any, bytes]:
    answer = IdentityTranslator(to_stream).reader(head or TYPES[not to_stream], coding)
    bounds = [0, *(min(cut, len(raw)) for cut in sorted(cuts)), len(raw)]
    return answer, b"".join([*(answer.feed(raw[a:b]) for a, b in pairwise(bounds)), answer.end()])


def events(raw: bytes) -> list[dict[str, Any]]:
    blocks = raw.decode().removesuffix("\n\n").split("\n\n")
    told = [json.loads(block.partition("\ndata: ")[2]) for block in blocks]
    assert [block.partition("\n")[0] for block in blocks] == [f"event: {one['type']}" for one in told]
    return told


@given(MESSAGES, CUTS, st.sampled_from([bytes, gzip.compress]))
def test_a_message_becomes_a_stream_and_that_the_message_again(told, cuts, compress):
    coding = "gzip" if compress is gzip.compress else ""
    answer, stream = reshaped(compress(json.dumps(told).encode()), to_stream=True, coding=coding, cuts=cuts)
    assert (answer.facts.cut, answer.facts.provider_error, answer.content_type) == (
        "",
        None,
        "text/event-stream; charset=utf-8",
    )
    check_events(events(stream))
    again, whole = reshaped(stream, to_stream=False, cuts=cuts)
    assert (again.facts.cut, again.facts.provider_error, again.finished) == ("", None, True)
    assert json.loads(whole) == told


@given(st.lists(st.sampled_from(BLOCKS[:1] + BLOCKS[3:9]), min_size=1), CUTS)
def test_a_stream_becomes_its_message(blocks, cuts):
    told = message(blocks)
    _, whole = reshaped(b"".join(streamed(told)), to_stream=False, cuts=cuts)
    assert json.loads(whole) == told


@pytest.mark.parametrize(
    ("wire", "why"),
    [
        (gzip.compress(json.dumps(message(BLOCKS[:1])).encode())[:-9], "cut short"),
        (b"no gzip", "corrupt: Error -3 while decompressing data: incorrect header check"),
    ],
)
def test_a_broken_encoding_cuts_the_answer_and_says_why(wire, why):
    answer, out = reshaped(wire, to_stream=True, coding="gzip")
    assert (answer.facts.cut, out) == (f"its content-encoding is {why}", b"")


@pytest.mark.parametrize("block", [block for block in BLOCKS if block != UNSIGNED], ids=repr)
def test_a_block_of_any_type_becomes_events_and_again_the_block(block):
    _, stream = reshaped(json.dumps(message([block])).encode(), to_stream=True)
    assert json.loads(reshaped(stream, to_stream=False)[1])["content"] == [block]


def test_arguments_stay_as_they_were_written():
    arguments = b'{"n": 1.50, "big":123456789012345678901234567890}'
    block = b'{"type":"tool_use","id":"t","name":"n","input":%b}' % arguments
    raw = b'{"type":"message","content":[%b],"stop_reason":"tool_use"}' % block
    _, stream = reshaped(raw, to_stream=True)
    delta = next(one["delta"] for one in events(stream) if one["type"] == "content_block_delta")
    assert delta["partial_json"].encode() == arguments
    assert arguments in reshaped(stream, to_stream=False)[1]


def test_an_answer_in_the_requested_form_is_not_reshaped():
    for stream in (True, False):
        assert isinstance(IdentityTranslator(stream).reader(TYPES[stream], "gzip"), MessagesReader)


@given(CUTS)
def test_an_unannounced_stream_passes_in_whole_events(cuts):
    raw = b": hi\r\n\r\n" + b"".join(streamed(message(BLOCKS[:2]))) + b"event: ping"
    answer = IdentityTranslator(True).reader("text/plain", "")
    bounds = [0, *(min(cut, len(raw)) for cut in sorted(cuts)), len(raw)]
    pieces = [answer.feed(raw[a:b]) for a, b in pairwise(bounds)]
    assert all(piece.endswith((b"\n\n", b"\r\n\r\n")) for piece in pieces if piece)
    assert b"".join([*pieces, answer.end()]) == raw


def test_a_message_announced_as_a_stream_passes_if_a_message_was_requested():
    raw = b' {"n": 1.50}'
    assert reshaped(raw, to_stream=False)[1] == raw


def test_an_error_stays_one_in_either_form():
    error = error_json(529, "overloaded_error").body
    answer, stream = reshaped(error, to_stream=True)
    assert (answer.facts.provider_error, answer.facts.cut) == (error, "")
    assert events(stream) == [json.loads(error)]
    begun = b"".join([*streamed(message(BLOCKS[:1]))][:3])
    answer, whole = reshaped(begun + stream, to_stream=False)
    assert json.loads(answer.facts.provider_error) == json.loads(whole) == json.loads(error)
    assert answer.finished


STREAM = b"".join(streamed(message(BLOCKS[:1])))


@pytest.mark.parametrize(
    ("raw", "to_stream", "why"),
    [
        (STREAM[: STREAM.index(b"event: message_delta")], False, "ended before its message did"),
        (b'data: {"choices":[]}\n\n', False, "look at the provider's api"),
        (
            event("content_block_delta", index=0, delta={"type": "text_delta", "text": "x"}),
            False,
            "could not be read",
        ),
        (b"data: {\n\n", False, "could not be read"),
        (b'{"content":[5]}', True, "could not be read"),
    ],
)
def test_malformed_answers_are_cut(raw, to_stream, why):
    answer, said = reshaped(raw, to_stream=to_stream)
    assert why in answer.facts.cut
    assert said == b""


@pytest.mark.parametrize("raw", [b'{"choices":[]}', b'{"error":{"message":"m"}}'])
def test_another_protocol_becomes_an_event_without_a_name(raw):
    assert reshaped(raw, to_stream=True)[1] == b"data: " + raw + b"\n\n"


@pytest.mark.parametrize("raw", [b"", b"[1]", b'{"n": 1.50}', b"{", b"<html>"])
def test_unknown_bodies_pass(raw):
    answer, said = reshaped(raw, to_stream=True)
    assert (answer.facts.cut, answer.facts.provider_error, said) == ("", None, raw)


def test_a_stream_with_a_stop_reason_is_whole_without_message_stop():
    raw = STREAM[: STREAM.index(b"event: message_stop")]
    assert json.loads(reshaped(raw, to_stream=False)[1]) == message(BLOCKS[:1])


def test_an_unknown_encoding_is_reported():
    assert "coding" in reshaped(b"x", to_stream=True, coding="what")[0].facts.cut
    assert "coding" in reshaped(b"x", to_stream=True, coding="gzip")[0].facts.cut
