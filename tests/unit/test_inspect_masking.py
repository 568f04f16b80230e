"""Credentials in bodies that are shown and saved, also those that a stream tells in pieces."""

import gzip
import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.inspect.answers import answer_of, answer_text
from signalbox.inspect.masking import MOST_DECODED, MaskedBody, masked
from tests.support.answers import compressed, event, message_sse, tool_block

KEY = "zai-key-for-tests-0001"
OTHER = "other-key-for-tests-02"


def shown(*events: bytes) -> str:
    """What a view shows of a stream that is masked."""
    return "\n".join(answer_text(answer_of(masked(b"".join(events), [OTHER, KEY]))))


def test_key_told_in_one_piece_is_masked():
    assert shown(*message_sse("glm", ["It is ", KEY, "."]).chunks).endswith("It is ***.")


@given(st.sets(st.integers(1, len(KEY) - 1)), st.integers(0, 5))
def test_key_is_masked_however_a_stream_cuts_it(cuts, before):
    said = "x" * before + KEY + " and no more"
    edges = [0, *sorted(cut + before for cut in cuts), len(said)]
    pieces = [said[a:b] for a, b in pairwise(edges)]
    text = shown(*message_sse("glm", pieces).chunks)
    assert text.endswith("x" * before + "*** and no more")


@pytest.mark.parametrize("kind", ["text", "thinking"])
@pytest.mark.parametrize("space", [b"", b" "], ids=["Anthropic's spelling", "another"])
def test_key_that_begins_in_the_start_of_a_block_is_masked(kind, space):
    start = event("content_block_start", index=0, content_block={"type": kind, kind: f"It is {KEY[:9]}"})
    delta = event("content_block_delta", index=0, delta={"type": f"{kind}_delta", kind: KEY[9:]})
    told = (event("message_start", message={}), start, delta.replace(b"data: {", b"data: {" + space))
    assert "It is ***" in shown(*told)


def test_parts_of_a_responses_stream_are_followed_each_by_itself():
    def delta(index: int, text: str) -> bytes:
        told = {
            "type": "response.output_text.delta",
            "output_index": index,
            "content_index": 0,
            "delta": text,
        }
        return b"event: response.output_text.delta\ndata: %s\n\n" % json.dumps(told).encode()

    told = masked(delta(0, KEY[:9]) + delta(1, "x" * 30) + delta(0, KEY[9:]), [KEY])
    assert KEY[9:].encode() not in told
    assert KEY[:9].encode() not in told


def test_arguments_of_parallel_calls_are_followed_each_by_itself():
    starts = [
        event("content_block_start", index=i, content_block=tool_block() | {"id": f"t{i}"}) for i in (0, 1)
    ]

    def delta(index: int, text: str) -> bytes:
        return event(
            "content_block_delta", index=index, delta={"type": "input_json_delta", "partial_json": text}
        )

    told = [
        delta(0, f'{{"a": "{KEY[:9]}'),
        delta(1, '{"b": "fine'),
        delta(0, f'{KEY[9:]}"}}'),
        delta(1, '"}'),
    ]
    text = shown(event("message_start", message={}), *starts, *told)
    assert "a: ***" in text
    assert "b: fine" in text


def test_key_in_chunks_of_chat_completions_is_masked():
    def chunk(text: str) -> bytes:
        return b"data: %s\n\n" % json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]}).encode()

    text = shown(*map(chunk, ("It is ", *KEY, ".")))
    assert "It is ***." in text


def test_beginning_of_a_key_at_the_end_of_what_has_come_is_masked_until_more_comes():
    first, second = [
        event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})
        for text in (f"It is {KEY[:12]}", " not so secret")
    ]
    body = MaskedBody([KEY])
    body.add(first)
    assert KEY[:12].encode() not in body.shown()
    assert b"It is ***" in body.shown()
    body.add(second)
    assert body.shown() == first + second


@pytest.mark.parametrize("length", [8, 15, 21])
def test_body_that_is_cut_within_a_key_shows_nothing_of_it(length):
    whole = json.dumps({"text": f"It is {KEY[:length]}"}).encode()
    cut = whole.removesuffix(b'"}')
    assert masked(cut, [KEY]) == b'{"text": "It is ***'
    events = b"".join(message_sse("glm", [f"It is {KEY}"]).chunks)
    at = events.index(KEY.encode()) + length
    assert masked(events[:at], [KEY]).endswith(b'"It is ***')


def test_key_in_a_compressed_body_is_masked_and_the_body_is_decoded():
    body = json.dumps({"text": KEY}).encode()
    assert masked(gzip.compress(body), [KEY], "gzip") == b'{"text": "***"}'
    for coding in ("gzip", "br", "zstd"):
        packed = compressed(message_sse("glm", KEY), coding)
        assert b"msg_fake" in (told := masked(packed.body, [KEY], coding))
        assert "\n***" in "\n".join(answer_text(answer_of(told)))


def test_body_without_a_key_stays_as_it_is():
    events = b"".join(message_sse("glm", ["a\nb", "é"]).chunks)
    for body in (
        b"",
        b"\xff\xfe",
        b'{"a": "b"}',
        events,
        events.replace(b"\n", b"\r\n"),
        b"data: {\n\ndata: 1\n\n",
    ):
        assert masked(body, [KEY]) == body
    packed = gzip.compress(events)
    assert masked(packed, [KEY], "gzip") == packed


@pytest.mark.parametrize(
    ("body", "coding"),
    [
        (b"not gzip", "gzip"),
        (b"{}", "an-encoding-of-nobody"),
        (gzip.compress(bytes(MOST_DECODED + 1)), "gzip"),
    ],
    ids=["corrupt", "not known", "too large"],
)
def test_nothing_is_shown_of_a_body_that_cannot_be_decoded(body, coding):
    assert masked(body, [KEY], coding) == b""
    assert masked(body, [], coding) == body  # where secrets are shown
