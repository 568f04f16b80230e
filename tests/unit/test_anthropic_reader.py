"""Answers read on their way to the client."""

import gzip
import json
import zlib
from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from signalbox.anthropic.api import TOKEN_FIELDS
from signalbox.anthropic.issued import ThinkingBlock
from signalbox.anthropic.reader import WHOLE_LIMIT, MessagesReader, Rewrites

GOLDEN = sorted((Path(__file__).parents[1] / "golden/anthropic/streams").glob("*.txt"))
ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "gzip": partial(gzip.compress, mtime=0),
    "br": brotli.compress,
    "zstd": zstandard.compress,
}
FACTS = ("message_id", "stopped", "error", "complete", "began", "is_stream", "fault")


def _case(name: str) -> bytes:
    path = next(path for path in GOLDEN if path.stem == name)
    return path.read_bytes().partition(b"-----\n")[0]


ANTHROPIC, ZEROS = _case("anthropic"), _case("zeros_at_the_start")
WHOLE = _case("whole_message")


def _read(
    chunks: Iterable[bytes],
    type: str = "text/event-stream",
    encoding: str = "",
    *,
    key: bytes | None = None,
    **change: Any,
) -> tuple[MessagesReader, bytes]:
    one = _reader(type, encoding, key=key, **change)
    return one, b"".join([*(one.feed(chunk) for chunk in chunks), one.end()])


def _reader(
    type: str = "text/event-stream", encoding: str = "", *, key: bytes | None = None, **change: Any
) -> MessagesReader:
    return MessagesReader(type, encoding, rewrites=Rewrites(**change), key=key)


def _facts(one: MessagesReader) -> dict[str, Any]:
    facts = {name: getattr(one.facts, name) for name in FACTS}
    return json.loads(
        json.dumps({"usage": [getattr(one.facts.usage, name) for name in TOKEN_FIELDS], **facts})
    )


def _chunks(raw: bytes, cuts: list[int]) -> list[bytes]:
    bounds = [0, *(min(cut, len(raw)) for cut in sorted(cuts)), len(raw)]
    return [raw[a:b] for a, b in pairwise(bounds)]


CUTS = st.lists(st.integers(0, 1500), max_size=12)
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "model": st.sampled_from(["claude-fake-1", "asked"]),
        "estimate": st.integers(0, 9999).map(lambda n: lambda: n),
        "error_events": st.just(True),
    },
)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_facts_of_recorded_answers(path):
    answer, _, expected = path.read_bytes().partition(b"-----\n")
    one, passed = _read([answer])
    assert passed == answer
    assert _facts(one) == json.loads(expected)


@given(st.sampled_from(GOLDEN), st.sampled_from(list(ENCODERS)), CUTS, CHANGES)
def test_facts_and_bytes_do_not_depend_on_cuts_or_encoding(path, encoding, cuts, change):
    answer = path.read_bytes().partition(b"-----\n")[0]
    wire = ENCODERS[encoding](answer)
    plain, expected = _read([answer], **change)
    one, passed = _read(_chunks(wire, cuts), encoding=encoding, **change)
    assert _facts(one) == _facts(plain)
    assert one.decodes is bool(change and encoding)
    assert passed == (expected if change else wire)


@given(st.sampled_from(list(ENCODERS)), CUTS)
def test_chunks_pass_uncopied_without_rewrites(encoding, cuts):
    one = _reader("text/event-stream", encoding)
    for chunk in _chunks(ENCODERS[encoding](ANTHROPIC), cuts):
        assert one.feed(chunk) is chunk
    assert one.end() == b""


@given(st.sampled_from([ANTHROPIC, ZEROS]), st.integers(0, 1500), CUTS)
def test_a_cut_stream_keeps_what_was_seen_and_usage_never_falls(stream, length, cuts):
    one, total = _reader("text/event-stream"), 0
    whole, _ = _read([stream])
    for chunk in _chunks(stream[:length], cuts):
        one.feed(chunk)
        now = one.facts.usage.total_input + one.facts.usage.output_tokens
        assert now >= total
        total = now
    assert total <= whole.facts.usage.total_input + whole.facts.usage.output_tokens


@given(
    st.lists(st.binary(max_size=40) | st.sampled_from([b"data: ", b"event: error\n", b"{}\n\n", b'{"a":'])),
    st.sampled_from(["text/event-stream", "application/json", "text/html", ""]),
    st.sampled_from(["", "gzip", "br", "zstd", "deflate", "what"]),
    CHANGES,
)
def test_garbage_never_raises_and_passes(chunks, type, encoding, change):
    one, passed = _read(chunks, type, encoding, **change)
    if not one.decodes:
        assert passed == b"".join(chunks)
    elif not one.facts.broken:
        assert one.facts.fault == "" or passed


CHUNK = b'data: {"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (CHUNK, "the answer is a chat completion and no message; look at the provider's api"),
        (b'{"choices":[{"message":{"content":"Hi"}}]}', "the answer is a chat completion and no message; "),
        (b'data: {"type":"response.created"}\n\n', "the answer is one of the Responses API and no message; "),
        (b'{"object":"chat.completion","choices":null}', "the answer is a chat completion and no message; "),
        (b'{"candidates":[{"content":{}}]}', "the answer is one of the Gemini API and no message; "),
        (
            b'{"message":{"content":"Hi"},"done":true}',
            "the answer is one of Ollama's own API and no message; ",
        ),
        (b'data: {"error":{"message":"no memory"}}\n\n', "no memory"),
        (b'{"code":401,"msg":"token expired","success":false}', "token expired"),
    ],
)
def test_answers_in_other_protocols_are_errors_that_name_the_protocol(raw, said):
    one, _ = _read([raw])
    assert one.facts.foreign.startswith(said)
    assert one.facts.error is not None
    assert not one.facts.began


@pytest.mark.parametrize(
    "raw",
    [
        ANTHROPIC,
        ZEROS,
        WHOLE,
        b'{"input_tokens":3}',
        b'{"type":"error","error":{"type":"api_error","message":"no"}}',
        b'data: {"message":"queued"}\n\n',
        b"event: error\ndata: {}\n\n",
    ],
)
def test_answers_in_the_messages_api_are_not_foreign(raw):
    assert _read([raw])[0].facts.foreign == ""


@pytest.mark.parametrize("name", ["gzip", "br", "zstd"])
def test_a_compressed_answer_is_counted_and_passes_compressed(name):
    wire = ENCODERS[name](ANTHROPIC)
    one, passed = _read([wire], encoding=name)
    assert passed == wire
    assert not one.decodes
    assert one.facts.usage.output_tokens == 89


def test_a_flushed_event_of_a_compressed_stream_counts_at_once():
    compressor = zlib.compressobj(wbits=31)
    one = _reader("text/event-stream", "gzip", model="asked")
    start = ANTHROPIC.partition(b"event: content_block_start")[0]
    passed = one.feed(compressor.compress(start) + compressor.flush(zlib.Z_SYNC_FLUSH))
    assert passed == start.replace(b"claude-fake-1", b"asked")
    assert one.facts.usage.input_tokens == 25


def test_only_the_models_bytes_change_in_a_stream():
    _, passed = _read([ANTHROPIC], model='as "kéd')
    assert passed == ANTHROPIC.replace(b'"claude-fake-1"', '"as \\"kéd"'.encode())


def test_only_the_models_bytes_change_in_a_whole_answer():
    raw = b' {"a": {"model": "inner"}, "mod\\u0065l" : "x" , "n":1e5, "usage": {"output_tokens": 1.0}}\n'
    _, passed = _read([raw[:20], raw[20:]], "application/json", model="asked")
    assert passed == raw.replace(b'"x"', b'"asked"')


def test_zero_input_is_shown_as_the_estimate_and_not_counted():
    one, passed = _read([ZEROS], estimate=lambda: 1234)
    assert passed == ZEROS.replace(b'{"input_tokens":0,', b'{"input_tokens":1234,', 1)
    assert one.facts.usage.input_tokens == 1200
    start, _ = _read([ZEROS.partition(b"event: content_block_start")[0]], estimate=lambda: 1234)
    assert start.facts.usage.input_tokens == 0


def _started(usage: str) -> bytes:
    message = b'{"id":"m",%b"content":[]}' % (f'"usage":{usage},'.encode() if usage else b"")
    return b'event: message_start\ndata: {"type":"message_start","message":%b}\n\n' % message


@pytest.mark.parametrize("field", ["input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"])
def test_reported_input_is_not_replaced_by_the_estimate(field):
    raw = _started(json.dumps({"input_tokens": 0, "output_tokens": 1} | {field: 5}))
    assert _read([raw], estimate=lambda: pytest.fail("nobody needs it"))[1] == raw


@pytest.mark.parametrize(
    ("usage", "filled"),
    [
        ("", {"input_tokens": 7, "output_tokens": 0}),
        ("null", {"input_tokens": 7, "output_tokens": 0}),
        ("{}", {"input_tokens": 7, "output_tokens": 0}),
        ('"none"', {"input_tokens": 7, "output_tokens": 0}),
        ('{"input_tokens":null,"output_tokens":null}', {"input_tokens": 7, "output_tokens": 0}),
        ('{"input_tokens":12}', {"input_tokens": 12, "output_tokens": 0}),
        (
            '{"cache_read_input_tokens":12,"x":1}',
            {"cache_read_input_tokens": 12, "x": 1, "input_tokens": 0, "output_tokens": 0},
        ),
    ],
)
def test_missing_usage_counts_are_filled_in(usage, filled):
    """Clients add to these counts without asking whether they are there; the tally is what was reported."""
    one, passed = _read([_started(usage)], estimate=lambda: 7)
    told = json.loads(passed.partition(b"data: ")[2])["message"]
    assert told == {"id": "m", "usage": filled, "content": []}
    assert one.facts.usage.output_tokens == 0
    assert one.facts.usage.total_input == (12 if "12" in usage else 0)
    whole = _started(usage).partition(b'"message":')[2].strip()[:-1]
    one, passed = _read([whole], "application/json", estimate=lambda: 7)
    assert json.loads(passed) == told
    assert one.facts.usage.total_input == (12 if "12" in usage else 0)


def test_a_count_of_tokens_has_no_usage():
    counted = b'{"input_tokens": 2048}'
    assert _read([counted], "application/json", estimate=lambda: 7)[1] == counted


def test_model_and_estimate_are_rewritten_together():
    _, passed = _read([ZEROS], model="asked", estimate=lambda: 7)
    assert passed == ZEROS.replace(b"glm-fake", b"asked").replace(
        b'{"input_tokens":0,', b'{"input_tokens":7,', 1
    )


def test_an_answer_that_names_no_model_names_the_one_asked_for():
    passed = _read([ANTHROPIC.replace(b'"model":"claude-fake-1",', b"", 1)], model="asked")[1]
    start = json.loads(passed.partition(b"\n\n")[0].partition(b"data: ")[2])
    assert start["message"]["model"] == "asked"
    passed = _read([b'{"id":"m","content":[]}'], "application/json", model="asked")[1]
    assert json.loads(passed) == {"id": "m", "content": [], "model": "asked"}


def test_a_stream_that_names_two_models_names_the_one_asked_for():
    twice = ANTHROPIC.replace(b'"model":"claude-fake-1"', b'"model":"claude-fake-1","model":"fake-2"', 1)
    assert twice != ANTHROPIC
    passed = _read([twice], model="asked", estimate=lambda: 7)[1]
    assert b"fake" not in passed.partition(b"\n\n")[0].replace(b"msg_fake", b"")
    start = json.loads(passed.partition(b"\n\n")[0].partition(b"data: ")[2])
    assert start["message"]["model"] == "asked"


def test_bytes_wait_only_until_message_start_is_complete():
    one = _reader("text/event-stream", model="asked")
    end = ANTHROPIC.index(b"\n\n") + 2
    assert one.feed(ANTHROPIC[:10]) == b""
    assert one.feed(ANTHROPIC[10 : end - 1]) == b""
    assert one.feed(ANTHROPIC[end - 1 : end]) == ANTHROPIC[:end].replace(b"claude-fake-1", b"asked")
    assert one.feed(b"event: content_bl") == b"event: content_bl"


def test_events_before_message_start_are_not_held():
    one = _reader("text/event-stream", model="asked")
    for early in (b": keep-alive\n\n", b"event: ping\r\ndata: {}\r\n\r\n"):
        assert one.feed(early) == early
    assert b"asked" in one.feed(ANTHROPIC)


@pytest.mark.parametrize("shape", ['{"type": "error", "error": {"message": "busy"}}', '{"message": "busy"}'])
def test_a_late_error_is_recognised_by_event_name_or_type(shape):
    begun = ANTHROPIC.partition(b"event: message_delta")[0]
    one, _ = _read([begun, b"event: error\ndata: %b\n\n" % shape.encode()])
    assert one.facts.began
    assert one.facts.error == ("", "busy")


TOO_LONG = b'event: error\ndata: {"error":{"type":"1261","message":"Too much"}}\n\n'


@given(st.booleans(), CUTS)
def test_an_early_context_error_is_reworded_for_claude_code(with_start, cuts):
    start = ANTHROPIC[: ANTHROPIC.index(b"event: content_block_start")] if with_start else b""
    _, passed = _read(_chunks(start + TOO_LONG, cuts), error_events=True)
    said = json.loads(passed.removeprefix(start + b"event: error\ndata: "))
    assert said["error"] == {"type": "invalid_request_error", "message": "prompt is too long: Too much"}


@given(CUTS)
def test_an_error_within_the_answer_passes_as_it_came(cuts):
    begun = ANTHROPIC[: ANTHROPIC.index(b"event: content_block_stop")]
    assert _read(_chunks(begun + TOO_LONG, cuts), error_events=True)[1] == begun + TOO_LONG


def test_events_before_an_error_do_not_wait_for_one():
    one = _reader("text/event-stream", error_events=True)
    for event in ANTHROPIC.split(b"\n\n")[:3]:
        assert one.feed(event + b"\n\n") == event + b"\n\n"


def test_an_endless_first_event_is_held_up_to_a_limit():
    one = _reader("text/event-stream", model="asked")
    held = b"data: " + b"x" * 1_000_000
    assert one.feed(held) == b""
    assert one.feed(b"y" * 100_000) == held + b"y" * 100_000


@pytest.mark.parametrize("type", ["application/json", "text/event-stream"])
@pytest.mark.parametrize("name", ["json_error_called_a_stream", "count_tokens", "garbage"])
def test_answers_without_a_model_pass_unchanged(name, type):
    assert _read([_case(name)], type, model="asked", estimate=lambda: 9)[1] == _case(name)


def test_a_stream_is_known_without_its_content_type():
    one, _ = _read([b"\n" + ANTHROPIC], "application/octet-stream")
    assert one.facts.complete


def test_a_page_is_not_read():
    one, passed = _read([b"<html>", b'{"usage":{"input_tokens":5}}'], "text/html", model="asked")
    assert passed == b'<html>{"usage":{"input_tokens":5}}'
    assert one.facts.fault == "it is neither a stream nor JSON"
    assert not one.facts.usage.input_tokens


def test_an_empty_answer_is_neither_complete_nor_begun():
    one, passed = _read([], "application/json", model="asked")
    assert (passed, one.facts.complete, one.facts.began, one.facts.fault) == (b"", False, False, "")


@pytest.mark.parametrize("change", [{}, {"model": "asked"}])
def test_a_whole_answer_too_large_to_keep_passes_unread(change):
    padded = WHOLE.rstrip() + b" " * WHOLE_LIMIT
    one, passed = _read([padded[:90], padded[90:150], padded[150:]], "application/json", **change)
    assert passed == padded
    assert one.facts.fault == "it is too large"
    assert not one.facts.complete


@pytest.mark.parametrize("change", [{}, {"model": "asked"}])
def test_json_cut_short_passes_with_a_fault(change):
    one, passed = _read([WHOLE[:-9]], "application/json", **change)
    assert passed == WHOLE[:-9]
    assert one.facts.fault == "it is not a JSON object"
    assert not one.facts.complete


def test_an_unknown_encoding_passes_unread():
    one, passed = _read([b"opaque"], encoding="compress", model="asked")
    assert (passed, one.decodes) == (b"opaque", False)
    assert one.facts.fault == "its content-encoding is not known"


def test_corrupt_compression_costs_only_the_facts_without_rewrites():
    one, passed = _read([b"no gzip at all", b"more"], encoding="gzip")
    assert passed == b"no gzip at allmore"
    assert not one.facts.broken
    assert one.facts.fault.startswith("its content-encoding is corrupt")


@pytest.mark.parametrize("answer", [ANTHROPIC, WHOLE], ids=["stream", "json"])
def test_corrupt_compression_breaks_an_answer_that_is_decoded_to_be_changed(answer):
    compressor = zlib.compressobj(wbits=31)
    wire = compressor.compress(answer[:-5]) + compressor.flush(zlib.Z_SYNC_FLUSH)
    one = _reader("", "gzip", estimate=lambda: 1)
    assert one.feed(wire) + one.feed(b"\xff" * 20) == answer[:-5]
    assert one.facts.broken
    assert one.feed(b"more") == one.end() == b""


def test_a_compressed_answer_cut_short_is_broken_at_its_end():
    wire = gzip.compress(ANTHROPIC)
    one, passed = _read([wire[:-4]], encoding="gzip", estimate=lambda: 1)
    assert passed == ANTHROPIC
    assert one.facts.broken
    assert one.facts.fault == "its content-encoding is cut short"
    assert one.facts.usage.output_tokens == 89


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("thinking", {"key": b"longer than a key may be" * 9}),
        ("zeros_at_the_start", {"estimate": lambda: 1 // 0}),
    ],
)
def test_an_internal_error_changes_no_byte(name, change):
    one, passed = _read(_chunks(_case(name), [5, 500]), **change)
    assert passed == _case(name)
    assert one.facts.fault.endswith("Error while it was read")


def test_data_in_several_lines_is_read_and_passes_as_it_came():
    raw = b'event: message_start\ndata: {"type":"message_start",\ndata: "message":{"model":"x"}}\n\n'
    _, passed = _read([raw], model="asked")
    assert passed == raw


def test_nothing_more_comes_after_the_end():
    one, _ = _read([ANTHROPIC], model="asked")
    assert one.end() == b""


@pytest.mark.parametrize("kind", ["tool_use", "server_tool_use", "mcp_tool_use"])
def test_a_tools_start_begins_the_answer(kind):
    one = _reader("text/event-stream")
    one.feed(b'data: {"type":"content_block_start","content_block":{"type":"text","text":""}}\n\n')
    assert not one.facts.began
    one.feed(b'data: {"type":"content_block_start","content_block":{"type":"%b"}}\n\n' % kind.encode())
    assert one.facts.began


KEY = b"key for tests"
SIGNED = ThinkingBlock("thinking", "", "FakeSignature==")
THINKING = _case("thinking")


@given(CUTS, st.sampled_from(list(ENCODERS)))
def test_thinking_digests_do_not_depend_on_cuts(cuts, encoding):
    one, passed = _read(_chunks(ENCODERS[encoding](THINKING), cuts), encoding=encoding, key=KEY)
    assert passed == ENCODERS[encoding](THINKING)
    blocks = [
        SIGNED,
        ThinkingBlock("redacted_thinking", data="FakeData=="),
        ThinkingBlock("thinking", "Two words."),
    ]
    assert one.facts.issued == [block.digest(KEY) for block in blocks]


def test_thinking_is_digested_as_soon_as_its_block_ends():
    one = _reader("text/event-stream", key=KEY)
    before, stop, after = THINKING.partition(b"event: content_block_stop")
    one.feed(before)
    assert one.facts.issued == []
    one.feed(stop + after.partition(b"\n\n")[0] + b"\n\n")
    assert one.facts.issued == [SIGNED.digest(KEY)]


def test_unfinished_thinking_is_not_digested():
    one, _ = _read([THINKING.partition(b"event: content_block_stop")[0]], key=KEY)
    assert one.facts.issued == []


def test_thinking_of_a_whole_answer_is_digested():
    block = b'{"type":"thinking","thinking":"","signature":"FakeSignature=="},'
    one, _ = _read([WHOLE.replace(b'"content":[', b'"content":[' + block)], "application/json", key=KEY)
    assert one.facts.issued == [SIGNED.digest(KEY)]


def test_thinking_in_an_error_is_not_digested():
    raw = b'{"type":"error","error":{"type":"e"},"content":[{"type":"thinking","signature":"s"}]}'
    assert _read([raw], "application/json", key=KEY)[0].facts.issued == []


def test_nothing_is_digested_without_a_key():
    assert _read([THINKING])[0].facts.issued == []
