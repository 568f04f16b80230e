"""Answers of chat completions as Anthropic's, whole and in pieces, as clients read them."""

import asyncio
import gzip
import json
from collections.abc import Callable
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
from signalbox.anthropic.json_edit import Body
from signalbox.anthropic.reader import MessagesReader, Rewrites
from signalbox.anthropic.writer import LARGEST
from signalbox.openai.dialects import DIALECTS
from signalbox.openai.ids import AnswerIds, pack
from signalbox.openai.request import to_chat
from signalbox.openai.translator import ChatTranslator
from signalbox.routing.translator import Translator
from tests.support.chat import DONE, call, chunk
from tests.support.chat_streams import GOLDEN, KEY, case, chat, fed, options, sent, translated, written
from tests.support.request_validator import check_events

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


@given(st.sampled_from(GOLDEN), CUTS)
def test_output_does_not_depend_on_cuts(path, cuts):
    raw, expected = case(path)
    assert written(translated(raw, cuts)) == expected


@pytest.mark.parametrize("path", GOLDEN, ids=_named)
def test_an_answer_may_come_byte_by_byte(path):
    raw, expected = case(path)
    assert written(translated(raw, range(len(raw)))) == expected


OWN = ("cut", "provider_error")
"""Facts that only a translator can tell."""


def _observed(out: bytes, content_type: str) -> AnswerFacts:
    """What a reader of the Messages API tells of this answer."""
    reader = MessagesReader(content_type, key=KEY)
    assert reader.feed(out) + reader.end() == out
    return reader.facts


def _differences(facts: AnswerFacts, observed: AnswerFacts) -> dict[str, tuple[object, object]]:
    told, other = asdict(facts), asdict(observed)
    return {name: (told[name], other[name]) for name in told.keys() - OWN if told[name] != other[name]}


@pytest.mark.parametrize("path", GOLDEN, ids=_named)
@pytest.mark.parametrize("streams", [True, False], ids=["streamed", "whole"])
def test_facts_equal_those_that_an_observer_reads_from_the_output(path, streams):
    result = translated(case(path)[0], streams=streams)
    if result.out:
        kind = "text/event-stream" if streams else "application/json"
        assert _differences(result.facts, _observed(result.out, kind)) == {}
    else:
        assert _differences(result.facts, AnswerFacts()) == {}


@given(st.sampled_from(STREAMS), CUTS)
def test_facts_equal_those_of_an_observer_after_every_chunk(path, cuts):
    raw, _ = case(path)
    raw = raw.partition(b"\n\n")[2] if options(raw) else raw
    bounds = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    reader = chat(**options(case(path)[0])).reader("", "", request_id="req_fake", key=KEY)
    observer = MessagesReader("text/event-stream", key=KEY)
    for start, end in pairwise(bounds):
        observer.feed(reader.feed(raw[start:end]))
        assert _differences(reader.facts, observer.facts) == {}


@pytest.mark.parametrize("path", STREAMS, ids=_named)
def test_usage_never_falls(path):
    raw, before = case(path)[0], astuple(Usage())
    raw = raw.partition(b"\n\n")[2] if options(raw) else raw
    reader = chat(**options(case(path)[0])).reader("", "", request_id="req_fake")
    for piece in raw.splitlines(keepends=True):
        reader.feed(piece)
        now = astuple(reader.facts.usage)
        assert all(one >= other for one, other in zip(now, before, strict=True))
        before = now


@pytest.mark.parametrize("path", GOLDEN, ids=_named)
@pytest.mark.parametrize("streams", [True, False], ids=["streamed", "whole"])
def test_requested_model_and_estimate_are_written_as_a_rewriter_would(path, streams):
    """What the reader of a Messages provider would write in place of the provider's model and estimate."""
    plain = translated(case(path)[0], streams=streams)
    rewriter = MessagesReader(
        "text/event-stream" if streams else "application/json",
        rewrites=Rewrites('as "kéd', lambda: 77, context_errors=True),
    )
    expected = rewriter.feed(plain.out) + rewriter.end()
    result = translated(case(path)[0], streams=streams, response_model='as "kéd', estimate=lambda: 77)
    assert result.out == expected
    assert replace(result.facts, size=0) == replace(plain.facts, size=0)


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
def test_an_undecodable_answer_is_cut(encoding, why):
    result = fed([SAID, SAID], encoding)
    assert result.out == b""
    assert result.cut.startswith(why)


def test_an_event_leaves_as_soon_as_its_chunk_is_in():
    answer = chat().reader("text/event-stream", "", request_id="req_fake")
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
    reader = MessagesReader("text/event-stream" if streams else "application/json")
    reader.feed(result.out)
    reader.end()
    assert not reader.facts.began
    assert result.cut or reader.facts.error == ("overloaded_error", "fake: the answer is empty")


@pytest.mark.parametrize("path", GOLDEN, ids=_named)
def test_no_answer_holds_a_text_that_is_blank(path):
    """Anthropic refuses the conversation with one (anthropic-messages.md, 3)."""
    result = translated(case(path)[0], streams=False)
    if not result.cut and result.error is None:
        content = result.message()["content"]
        assert all(block["text"].strip() for block in content if block["type"] == "text")


def test_errors_before_the_answer_are_read_as_errors():
    reader = MessagesReader("text/event-stream")
    reader.feed(translated(sent("error_before_anything")).out)
    reader.end()
    assert reader.facts.error == ("rate_limit_error", "fake: Rate limit reached for requests")
    assert not reader.facts.began


@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize(
    ("content_type", "raw"),
    [("", sent("openai_text")), ("application/json", sent("whole")), ("text/plain", sent("openai_text"))],
)
def test_the_form_is_read_from_the_body(content_type, raw, streams):
    answer = chat(streams=streams).reader(content_type, "", request_id="req_fake")
    out = answer.feed(raw.removeprefix(b': {"streams":false}\n\n')) + answer.end()
    assert answer.content_type == ("text/event-stream; charset=utf-8" if streams else "application/json")
    assert out.startswith(b"event: message_start" if streams else b'{"id":"msg_Seed"')


def test_an_announced_stream_may_begin_with_any_field():
    raw = b"unknown: field\n" + sent("openai_text")
    answer = chat().reader("text/event-stream", "", request_id="req_fake")
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
def test_json_without_an_answer_is_cut_or_an_error(raw, cut, error):
    result = fed([raw])
    assert (result.cut, result.error) == (cut, error)


def test_a_whole_answer_is_bounded():
    assert fed([b"{", b" " * LARGEST]).cut == "the answer is too large"


def test_an_internal_error_leaks_no_chat_completion_to_the_client():
    reader = chat().reader("", "", request_id="req_fake", estimate=lambda: 1 // 0)
    assert reader.feed(SAID) == reader.end() == b""
    assert reader.facts.cut == "ZeroDivisionError while it was translated"


@given(st.lists(st.binary(max_size=300)), st.booleans())
def test_no_bytes_raise(chunks, streams):
    result = fed([b"data: {", *chunks], streams=streams)
    assert result.cut or result.error is not None


# there, back, and there again

ASKED = {"role": "user", "content": "Hello"}
READ = {"name": "Read", "input_schema": {"type": "object", "properties": {}}}


def _again(dialect: str, model: str, message: dict) -> dict:
    """The assistant message that a provider gets back after it gave this one; empty where it said nothing."""
    results = [
        {"type": "tool_result", "tool_use_id": block["id"], "content": "done"}
        for block in message["content"]
        if block["type"] == "tool_use"
    ]
    body = {
        "messages": [
            ASKED,
            {"role": "assistant", "content": message["content"]},
            {"role": "user", "content": results or "Go on"},
        ],
        "thinking": {"type": "adaptive"},
        "tools": [READ],
    }
    request = to_chat(
        Body.parse(json.dumps(body).encode()),
        model=model,
        dialect=DIALECTS[dialect],
        provider="fake",
        session=None,
    )
    messages = json.loads(request.body)["messages"]
    return next((one for one in messages if one["role"] == "assistant"), {})


def test_chat_translator_satisfies_the_protocol():
    one: Translator = chat()
    assert isinstance(one, ChatTranslator)


def test_errors_are_told_in_anthropics_shape():
    status, body = chat().error(503, b'{"error":{"message":"busy"}}')
    assert status == 529
    assert json.loads(body) == {
        "type": "error",
        "error": {"type": "overloaded_error", "message": "fake: busy"},
    }


@pytest.mark.parametrize("name", ["gemini_signature", "gemini_signature_alone", "gemini_signature_first"])
def test_gemini_gets_its_signature_back_with_the_call_that_had_it(name):
    model = "gemini-3.5-flash"
    message = translated(sent(name), streams=False, dialect="gemini", model=model).message()
    calls = _again("gemini", model, message)["tool_calls"]
    assert calls[0]["extra_content"] == {"google": {"thought_signature": "Zm9v+/=="}}
    assert all("extra_content" not in call for call in calls[1:])


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_every_answer_can_be_part_of_the_next_request(path):
    raw = case(path)[0]
    given = options(raw)
    result = translated(raw, streams=False)
    if result.cut or result.error is not None:
        return
    message = result.message()
    back = _again(given.get("dialect", "generic"), "m-0", message)
    uses = [block for block in message["content"] if block["type"] == "tool_use"]
    calls = back.get("tool_calls", [])
    assert [json.loads(call["function"]["arguments"]) for call in calls] == [use["input"] for use in uses]


LONG = {
    "Gemini's": pack("function-call-1", {"google": "c2ln" * 500}),
    "Kimi's": AnswerIds("Seed", "provider").given("functions.Read:0", "Read"),
    "a proxy's": AnswerIds("Seed", "provider").given("call_" + "f" * 300, "Read"),
    "Anthropic's": "toolu_vrtx_" + "0Aa" * 20,
    "packed and cut": pack("call_1", {"google": "c2ln" * 500})[:200],
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_no_id_is_longer_than_a_provider_takes_whoever_made_it(dialect):
    """The limits of openai-chat.md, 1; each call and its result keep together."""
    most = {"mistral": 9, "kimi": 64, "composer": 256}.get(dialect, 40)
    calls = [{"type": "tool_use", "id": id, "name": "Read", "input": {}} for id in LONG.values()]
    results = [
        {"type": "tool_result", "tool_use_id": id, "content": who} for who, id in reversed(LONG.items())
    ]
    body = {"messages": [{"role": "assistant", "content": calls}, {"role": "user", "content": results}]}
    raw = json.dumps(body).encode()
    request = to_chat(Body.parse(raw), model="m", dialect=DIALECTS[dialect], provider="fake", session=None)
    assistant, *tools = json.loads(request.body)["messages"][: len(LONG) + 1]
    ids = [call["id"] for call in assistant["tool_calls"]]
    assert all(len(id) <= most for id in ids), ids
    assert {tool["tool_call_id"]: tool["content"] for tool in tools} == dict(zip(ids, LONG, strict=True))
