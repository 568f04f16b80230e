"""Answers of chat completions as Anthropic's, whole and in pieces, as clients read them."""

import asyncio
import gzip
import json
from collections.abc import Callable
from itertools import pairwise

import anthropic
import brotli
import httpx2
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from signalbox.messages.reader import Reader
from signalbox.translate import translated as module
from tests.chat import DONE, call, chunk
from tests.chatstreams import GOLDEN, case, chat, fed, options, sent, translated, written
from tests.wellformed import check_events

STREAMS = [path for path in GOLDEN if options(case(path)[0]).get("streams", True)]
WHOLE = [path for path in GOLDEN if path not in STREAMS]
CUTS = st.lists(st.integers(0, 3000), max_size=12)
ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "br": brotli.compress,
    "zstd": zstandard.compress,
}
SAID = chunk({"content": "Hi"})


def _named(path):
    return path.stem


@pytest.mark.parametrize("path", GOLDEN, ids=_named)
def test_golden(path):
    raw, expected = case(path)
    assert written(translated(raw)).decode() == expected.decode()


@settings(deadline=None)
@given(st.sampled_from(GOLDEN), CUTS)
def test_what_comes_out_does_not_depend_on_how_the_bytes_are_cut(path, cuts):
    raw, expected = case(path)
    assert written(translated(raw, cuts)) == expected


@pytest.mark.parametrize("path", GOLDEN, ids=_named)
def test_an_answer_may_come_byte_by_byte(path):
    raw, expected = case(path)
    assert written(translated(raw, range(len(raw)))) == expected


@pytest.mark.parametrize("path", STREAMS, ids=_named)
def test_every_stream_is_well_formed(path):
    result = translated(case(path)[0])
    check_events(result.events(), is_cut=bool(result.cut))


@pytest.mark.parametrize("path", GOLDEN, ids=_named)
def test_streamed_and_whole_say_the_same(path):
    raw = case(path)[0]
    streamed, whole = translated(raw, streams=True), translated(raw, streams=False)
    assert (streamed.cut, streamed.error) == (whole.cut, whole.error)
    if whole.cut:
        assert not whole.out
    elif whole.error is not None:
        assert whole.message() == streamed.events()[-1]
    else:
        assert whole.message() == _message(streamed.out)


@pytest.mark.parametrize("path", STREAMS, ids=_named)
@pytest.mark.parametrize("is_beta", [False, True], ids=["messages", "beta"])
def test_the_official_client_reads_every_stream(path, is_beta):
    raw = case(path)[0]
    result = translated(raw)
    client = _client(result.out, "text/event-stream")
    messages = client.beta.messages if is_beta else client.messages
    ask = {"model": "m-0", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
    with client, messages.stream(**ask) as stream:
        if result.error is not None:
            with pytest.raises(anthropic.APIStatusError):
                stream.get_final_message()
            return
        if result.cut:
            for _ in stream:
                pass
            return
        message = stream.get_final_message()
    expected = translated(raw, streams=False).message()
    told = message.model_dump(mode="json", exclude_unset=True)
    for one, other in zip(told["content"], expected["content"], strict=True):
        assert {name: one[name] for name in other} == other
    assert told["stop_reason"] == expected["stop_reason"]
    assert told["usage"]["output_tokens"] == expected["usage"]["output_tokens"]


@pytest.mark.parametrize("path", WHOLE, ids=_named)
def test_the_official_client_reads_every_message(path):
    result = translated(case(path)[0])
    if result.cut or result.error is not None:
        return
    with _client(result.out, "application/json") as client:
        message = client.messages.create(
            model="m-0", max_tokens=9, messages=[{"role": "user", "content": "x"}]
        )
    assert message.to_dict() == result.message()


def test_the_official_asynchronous_client_reads_every_answer():
    asyncio.run(_read_all())


async def _read_all() -> None:
    def answered(request: httpx2.Request) -> httpx2.Response:
        given = translated(case(next(path for path in GOLDEN if path.stem == request.headers["x-name"]))[0])
        kind = "text/event-stream" if given.out.startswith(b"event") else "application/json"
        return httpx2.Response(200, headers={"content-type": kind}, content=given.out)

    transport = httpx2.AsyncClient(transport=httpx2.MockTransport(answered))
    ask = {"model": "m-0", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
    async with anthropic.AsyncAnthropic(
        api_key="sk-ant-fake", http_client=transport, max_retries=0
    ) as client:
        for path in GOLDEN:
            raw, headers = case(path)[0], {"x-name": path.stem}
            result, whole = translated(raw), translated(raw, streams=False)
            if result.cut or (path in WHOLE and whole.error is not None):
                continue
            if path in WHOLE:
                message = await client.messages.create(**ask, extra_headers=headers)
                assert message.to_dict() == whole.message()
                continue
            async with client.messages.stream(**ask, extra_headers=headers) as stream:
                if result.error is not None:
                    with pytest.raises(anthropic.APIStatusError):
                        await stream.get_final_message()
                    continue
                message = await stream.get_final_message()
            assert (message.stop_reason, message.stop_sequence) == (
                whole.message()["stop_reason"],
                whole.message()["stop_sequence"],
            )
            inputs = [block.input for block in message.content if block.type == "tool_use"]
            assert inputs == [b["input"] for b in whole.message()["content"] if b["type"] == "tool_use"]


def _client(answer: bytes, content_type: str) -> anthropic.Anthropic:
    def answered(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": content_type}, content=answer)

    transport = httpx2.Client(transport=httpx2.MockTransport(answered))
    return anthropic.Anthropic(api_key="sk-ant-fake", http_client=transport, max_retries=0)


def _message(stream: bytes) -> dict:
    """What a stream adds up to."""
    message, texts = {}, []
    for event in map(json.loads, (line[6:] for line in stream.splitlines() if line.startswith(b"data: "))):
        match event["type"]:
            case "message_start":
                message = event["message"]
            case "content_block_start":
                message["content"].append(event["content_block"])
                texts = []
            case "content_block_delta" if event["delta"]["type"] == "signature_delta":
                message["content"][-1]["signature"] = event["delta"]["signature"]
            case "content_block_delta":
                texts.append(
                    event["delta"][
                        event["delta"]["type"].replace("input_json", "partial_json").removesuffix("_delta")
                    ]
                )
            case "content_block_stop":
                block, text = message["content"][-1], "".join(texts)
                if block["type"] == "tool_use":
                    try:
                        block["input"] = json.loads(text)
                    except ValueError:
                        assert event["index"] == len(message["content"]) - 1
                else:
                    block[block["type"]] = text
            case "message_delta":
                message |= event["delta"]
                message["usage"] |= event["usage"]
    return message


@pytest.mark.parametrize("encoding", ENCODERS)
@settings(deadline=None)
@given(cuts=CUTS)
def test_a_compressed_answer_is_decoded(encoding, cuts):
    raw = sent("openai_tool_call")
    wire = ENCODERS[encoding](raw)
    bounds = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]
    pieces = [wire[a:b] for a, b in pairwise(bounds)]
    assert fed(pieces, encoding) == translated(raw)


@pytest.mark.parametrize(
    ("encoding", "why"),
    [("fake", "content-encoding 'fake' is not known"), ("gzip", "its content-encoding is corrupt: ")],
)
def test_what_cannot_be_decoded_is_cut(encoding, why):
    result = fed([SAID, SAID], encoding)
    assert result.out == b""
    assert result.cut.startswith(why)


def test_an_event_leaves_as_soon_as_its_chunk_is_in():
    answer = chat().answer("text/event-stream", "", "req_fake")
    assert b"message_start" in answer.feed(chunk({"role": "assistant", "content": ""}))
    assert b'"text":"Hi"' in answer.feed(SAID)
    assert b'"name":"Read"' in answer.feed(chunk({"tool_calls": [call("Read", "")]}))
    assert b"pa" in answer.feed(chunk({"tool_calls": [call("", '{"pa')]}))
    assert b"content_block_stop" in answer.feed(chunk({"tool_calls": [call("", 'th":"a"}')]}))
    assert answer.feed(chunk({}, "tool_calls")) == b""
    assert b"message_stop" in answer.feed(DONE)
    assert answer.end() == b""


@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize("name", ["empty", "empty_thinking_hidden", "cut_at_the_start", "whole_empty"])
def test_an_answer_without_anything_in_it_has_not_begun(name, streams):
    result = translated(sent(name), streams=streams)
    reader = Reader("text/event-stream" if streams else "application/json")
    reader.feed(result.out)
    reader.end()
    assert not reader.began
    assert result.cut or reader.error == ("overloaded_error", "fake: the answer is empty")


@pytest.mark.parametrize("path", GOLDEN, ids=_named)
def test_no_answer_holds_a_text_that_is_blank(path):
    """Anthropic refuses the conversation with one (anthropic-messages.md, 3)."""
    result = translated(case(path)[0], streams=False)
    if not result.cut and result.error is None:
        content = result.message()["content"]
        assert all(block["text"].strip() for block in content if block["type"] == "text")


def test_errors_before_the_answer_are_read_as_errors():
    reader = Reader("text/event-stream")
    reader.feed(translated(sent("error_before_anything")).out)
    reader.end()
    assert reader.error == ("rate_limit_error", "fake: Rate limit reached for requests")
    assert not reader.began


@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize(
    ("content_type", "raw"),
    [("", sent("openai_text")), ("application/json", sent("whole")), ("text/plain", sent("openai_text"))],
)
def test_the_form_is_told_by_what_comes(content_type, raw, streams):
    answer = chat(streams=streams).answer(content_type, "", "req_fake")
    out = answer.feed(raw.removeprefix(b': {"streams":false}\n\n')) + answer.end()
    assert answer.content_type == ("text/event-stream; charset=utf-8" if streams else "application/json")
    assert out.startswith(b"event: message_start" if streams else b'{"id":"msg_Seed"')


def test_a_stream_that_begins_like_none_is_told_by_its_head():
    raw = b"unknown: field\n" + sent("openai_text")
    answer = chat().answer("text/event-stream", "", "req_fake")
    assert answer.feed(raw) + answer.end() == translated(sent("openai_text")).out
    assert fed([raw]).cut == "the answer is neither a stream nor JSON"


@pytest.mark.parametrize(
    ("raw", "cut", "error"),
    [
        (b'{"choices":[', "the answer is not JSON", None),
        (b'{"choices":[]}', "", b'{"error":{"type":"overloaded_error","message":"the answer is empty"}}'),
        (b'{"status":"ok"}', "", b'{"status":"ok"}'),
    ],
)
def test_a_whole_answer_that_is_none_is_a_fault(raw, cut, error):
    result = fed([raw])
    assert (result.cut, result.error) == (cut, error)


def test_a_whole_answer_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "LARGEST", 100)
    assert fed([b"{" + b" " * 200]).cut == "the answer is too large"


def test_a_fault_of_ours_shows_the_client_nothing_of_the_other_protocol(monkeypatch):
    def fault(_):
        raise ZeroDivisionError

    monkeypatch.setattr(module, "steps_of", fault)
    result = fed([SAID])
    assert result.out == b""
    assert result.cut == "ZeroDivisionError while it was translated"


@settings(deadline=None)
@given(st.lists(st.binary(max_size=300)), st.booleans())
def test_no_bytes_raise(chunks, streams):
    result = fed([b"data: {", *chunks], streams=streams)
    assert result.cut or result.error is not None
