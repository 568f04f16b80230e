"""Answers of other protocols as Anthropic's, whole and in pieces, as clients read them."""

import asyncio
import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, astuple, replace
from itertools import pairwise

import anthropic
import brotli
import httpx2
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from signalbox.anthropic.answer_facts import AnswerFacts
from signalbox.anthropic.api import Usage
from signalbox.anthropic.reader import MessagesReader, Rewrites
from tests.support.chat import chunk
from tests.support.chat_streams import CHAT
from tests.support.golden_streams import KEY, Result, written
from tests.support.request_validator import check_events
from tests.support.responses_streams import RESPONSES

GOLDEN = [*CHAT.cases, *RESPONSES.cases]
STREAMS = [case for case in GOLDEN if case.streams]
WHOLE = [case for case in GOLDEN if not case.streams]
SAID = chunk({"content": "Hi"})
KINDS = {True: "text/event-stream", False: "application/json"}
"""The content type of an answer that is streamed, and of one that is not."""
ASK = {"model": "m-0", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
CUTS = st.lists(st.integers(0, 3000), max_size=12)
ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "br": brotli.compress,
    "zstd": zstandard.compress,
}


@pytest.mark.parametrize("case", GOLDEN, ids=repr)
def test_golden(case):
    assert written(case.translated()).decode() == case.expected.decode()


@given(st.sampled_from(GOLDEN), CUTS)
def test_output_does_not_depend_on_cuts(case, cuts):
    assert written(case.translated(cuts)) == case.expected


@pytest.mark.slow
@pytest.mark.parametrize("case", GOLDEN, ids=repr)
def test_an_answer_may_come_byte_by_byte(case):
    assert written(case.translated(range(len(case.sent)))) == case.expected


NO_JSON = "are not valid JSON"
"""Why a stream is cut that has begun with arguments."""
OWN = ("cut", "provider_error")
"""Facts that only a translator can tell."""


def _observed(out: bytes, content_type: str) -> AnswerFacts:
    """What a reader of the Messages API tells of this answer."""
    reader = MessagesReader(content_type, key=KEY)
    assert reader.feed(out) + reader.end() == out
    return reader.facts


def _differences(facts: AnswerFacts, observed: AnswerFacts) -> dict[str, tuple[object, object]]:
    """The usage of an answer that failed is recorded, and told to no client; an estimate is told alone."""
    told, other = asdict(facts), asdict(observed)
    is_estimated = not facts.usage.output_tokens
    names = told.keys() - OWN - ({"usage"} if facts.provider_error or is_estimated else set())
    return {name: (told[name], other[name]) for name in names if told[name] != other[name]}


@pytest.mark.slow
@pytest.mark.parametrize("case", GOLDEN, ids=repr)
def test_facts_equal_those_that_an_observer_reads_from_the_output(case):
    for streams, kind in KINDS.items():
        result = case.translated(streams=streams)
        observed = _observed(result.out, kind) if result.out else AnswerFacts()
        assert _differences(result.facts, observed) == {}


@given(st.sampled_from(STREAMS), CUTS)
def test_facts_equal_those_of_an_observer_after_every_chunk(case, cuts):
    reader = case.protocol.reader(**case.options)
    observer = MessagesReader("text/event-stream", key=KEY)
    for piece in case.cut(cuts):
        observer.feed(reader.feed(piece))
        assert _differences(reader.facts, observer.facts) == {}


@pytest.mark.slow
@pytest.mark.parametrize("case", STREAMS, ids=repr)
def test_usage_never_falls(case):
    before, reader = astuple(Usage()), case.protocol.reader(**case.options)
    for piece in case.sent.splitlines(keepends=True):
        reader.feed(piece)
        now = astuple(reader.facts.usage)
        assert all(one >= other for one, other in zip(now, before, strict=True))
        before = now


@pytest.mark.slow
@pytest.mark.parametrize("case", GOLDEN, ids=repr)
def test_requested_model_and_estimate_are_written_as_a_rewriter_would(case):
    """What the reader of a Messages provider would write in place of the provider's model and estimate."""
    for streams, kind in KINDS.items():
        plain = case.translated(streams=streams)
        rewriter = MessagesReader(kind, rewrites=Rewrites('as "kéd', lambda: 77, error_events=True))
        expected = rewriter.feed(plain.out) + rewriter.end()
        result = case.translated(streams=streams, response_model='as "kéd', estimate=lambda: 77)
        if plain.error is not None and not streams:
            assert result.message()["error"]["type"] == plain.message()["error"]["type"]
        elif plain.facts.usage.total_input or plain.error is not None or plain.cut:
            assert result.out == expected
        else:
            assert _input_shown(result, streams=streams) == {77}
        assert replace(result.facts, size=0, error=None) == replace(plain.facts, size=0, error=None)


def _input_shown(result: Result, *, streams: bool) -> set[int]:
    """The counts of input tokens that a client gets."""
    told = result.events() if streams else [result.message()]
    told = [event.get("message", event) for event in told]
    return {said["usage"]["input_tokens"] for said in told if "input_tokens" in said.get("usage", {})}


@pytest.mark.slow
@pytest.mark.parametrize("case", STREAMS, ids=repr)
def test_every_stream_is_well_formed(case):
    result = case.translated()
    check_events(result.events(), is_cut=bool(result.cut))


@pytest.mark.slow
@pytest.mark.parametrize("case", GOLDEN, ids=repr)
def test_streamed_and_whole_say_the_same(case):
    streamed, whole = case.translated(streams=True), case.translated(streams=False)
    if NO_JSON in streamed.cut:  # which a whole answer has time for
        texts = [block.get("text", "") for block in whole.message()["content"]]
        assert any("not valid JSON and were left out" in text for text in texts)
        return
    assert (streamed.cut, streamed.error) == (whole.cut, whole.error)
    if whole.cut:
        assert not whole.out
    elif whole.error is not None:
        assert whole.message() == streamed.events()[-1]
    else:
        assert whole.message() == _message(streamed.out)


@pytest.mark.parametrize("case", STREAMS, ids=repr)
def test_the_official_client_reads_every_stream(case, official):
    result = official.answer = case.translated()
    for messages in (official.client.messages, official.client.beta.messages):
        with messages.stream(**ASK) as stream:
            if result.error is not None:
                with pytest.raises(anthropic.APIStatusError):
                    stream.get_final_message()
                continue
            if result.cut:
                for _ in stream:
                    pass
                continue
            message = stream.get_final_message()
        expected = case.translated(streams=False).message()
        told = message.model_dump(mode="json", exclude_unset=True)
        for one, other in zip(told["content"], expected["content"], strict=True):
            assert {name: one[name] for name in other} == other
        assert told["stop_reason"] == expected["stop_reason"]
        counted = ("output_tokens", "server_tool_use")
        assert [told["usage"].get(name) for name in counted] == [
            expected["usage"].get(name) for name in counted
        ]


@pytest.mark.parametrize("case", WHOLE, ids=repr)
def test_the_official_client_reads_every_message(case, official):
    result = official.answer = case.translated()
    if not result.cut and result.error is None:
        assert official.client.messages.create(**ASK).to_dict() == result.message()


class Official:
    """The official client; it gets `answer` for each request."""

    def __init__(self) -> None:
        transport = httpx2.Client(transport=httpx2.MockTransport(lambda _: _response(self.answer)))
        self.client = anthropic.Anthropic(api_key="sk-ant-fake", http_client=transport, max_retries=0)
        self.answer = Result(b"", AnswerFacts())


@pytest.fixture(scope="module")
def official() -> Iterator[Official]:
    official = Official()
    with official.client:
        yield official


def _response(result: Result) -> httpx2.Response:
    kind = KINDS[result.out.startswith(b"event")]
    return httpx2.Response(200, headers={"content-type": kind}, content=result.out)


@pytest.mark.slow
def test_the_official_asynchronous_client_reads_every_answer():
    asyncio.run(_read_all())


async def _read_all() -> None:
    def answered(request: httpx2.Request) -> httpx2.Response:
        asked = request.headers["x-case"]
        return _response(next(case for case in GOLDEN if repr(case) == asked).translated())

    transport = httpx2.AsyncClient(transport=httpx2.MockTransport(answered))
    async with anthropic.AsyncAnthropic(
        api_key="sk-ant-fake", http_client=transport, max_retries=0
    ) as client:
        for case in GOLDEN:
            headers = {"x-case": repr(case)}
            result, whole = case.translated(), case.translated(streams=False)
            if result.cut or (not case.streams and whole.error is not None):
                continue
            if not case.streams:
                message = await client.messages.create(**ASK, extra_headers=headers)
                assert message.to_dict() == whole.message()
                continue
            async with client.messages.stream(**ASK, extra_headers=headers) as stream:
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
            case "content_block_delta" if event["delta"]["type"] == "citations_delta":
                message["content"][-1].setdefault("citations", []).append(event["delta"]["citation"])
            case "content_block_delta":
                texts.append(
                    event["delta"][
                        event["delta"]["type"].replace("input_json", "partial_json").removesuffix("_delta")
                    ]
                )
            case "content_block_stop":
                block, text = message["content"][-1], "".join(texts)
                if block["type"].endswith("tool_use"):
                    try:
                        block["input"] = json.loads(text)
                    except ValueError:
                        assert event["index"] == len(message["content"]) - 1
                elif block["type"] in ("text", "thinking"):
                    block[block["type"]] = text
            case "message_delta":
                message |= event["delta"]
                message["usage"] |= event["usage"]
    return message


@pytest.mark.parametrize("encoding", ENCODERS)
@given(cuts=CUTS)
def test_a_compressed_answer_is_decoded(encoding, cuts):
    case = CHAT.case("openai_tool_call")
    wire = ENCODERS[encoding](case.sent)
    bounds = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]
    pieces = [wire[a:b] for a, b in pairwise(bounds)]
    assert CHAT.fed(pieces, encoding) == case.translated()


@pytest.mark.parametrize(
    ("encoding", "why"),
    [("fake", "content-encoding 'fake' is not known"), ("gzip", "its content-encoding is corrupt: ")],
)
def test_an_undecodable_answer_is_cut(encoding, why):
    result = CHAT.fed([SAID, SAID], encoding)
    assert result.out == b""
    assert result.cut.startswith(why)


def test_an_answer_whose_encoding_ends_too_early_is_cut():
    result = CHAT.fed([gzip.compress(SAID)[:-5]], "gzip")
    assert result.cut == "its content-encoding is cut short"


@pytest.mark.slow
@pytest.mark.parametrize("case", GOLDEN, ids=repr)
def test_no_answer_holds_a_text_that_is_blank(case):
    """Anthropic refuses the conversation with one (anthropic-messages.md, 3)."""
    result = case.translated(streams=False)
    if not result.cut and result.error is None:
        content = result.message()["content"]
        assert all(block["text"].strip() for block in content if block["type"] == "text")
