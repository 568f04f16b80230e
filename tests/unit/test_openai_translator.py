"""The reader of chat completions, and what a provider gets back of its answers."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.anthropic.json_edit import Body
from signalbox.anthropic.reader import MessagesReader
from signalbox.anthropic.writer import LARGEST
from signalbox.openai.dialects import DIALECTS
from signalbox.openai.ids import AnswerIds, pack
from signalbox.openai.request import to_chat
from signalbox.openai.translator import ChatTranslator
from signalbox.routing.translator import Translator
from tests.support.chat import DONE, call, chunk
from tests.support.chat_streams import CHAT, chat

SAID = chunk({"content": "Hi"})


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
    result = CHAT.case(name).translated(streams=streams)
    reader = MessagesReader("text/event-stream" if streams else "application/json")
    reader.feed(result.out)
    reader.end()
    assert not reader.facts.began
    assert result.cut or reader.facts.error == ("overloaded_error", "fake: the answer is empty")


def test_errors_before_the_answer_are_read_as_errors():
    reader = MessagesReader("text/event-stream")
    reader.feed(CHAT.case("error_before_anything").translated().out)
    reader.end()
    assert reader.facts.error == ("rate_limit_error", "fake: Rate limit reached for requests")
    assert not reader.facts.began


@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize(
    ("content_type", "name"),
    [("", "openai_text"), ("application/json", "whole"), ("text/plain", "openai_text")],
)
def test_the_form_is_read_from_the_body(content_type, name, streams):
    answer = chat(streams=streams).reader(content_type, "", request_id="req_fake")
    out = answer.feed(CHAT.case(name).sent) + answer.end()
    assert answer.content_type == ("text/event-stream; charset=utf-8" if streams else "application/json")
    assert out.startswith(b"event: message_start" if streams else b'{"id":"msg_Seed"')


def test_an_announced_stream_may_begin_with_any_field():
    raw = b"unknown: field\n" + CHAT.case("openai_text").sent
    answer = chat().reader("text/event-stream", "", request_id="req_fake")
    assert answer.feed(raw) + answer.end() == CHAT.case("openai_text").translated().out
    assert CHAT.fed([raw]).cut == "the answer is neither a stream nor JSON"


@pytest.mark.parametrize(
    ("raw", "cut", "error"),
    [
        (b'{"choices":[', "the answer is not JSON", None),
        (b'{"choices":[]}', "", b'{"error":{"type":"overloaded_error","message":"the answer is empty"}}'),
        (b'{"status":"ok"}', "", b'{"status":"ok"}'),
    ],
)
def test_json_without_an_answer_is_cut_or_an_error(raw, cut, error):
    result = CHAT.fed([raw])
    assert (result.cut, result.error) == (cut, error)


def test_a_whole_answer_is_bounded():
    assert CHAT.fed([b"{", b" " * LARGEST]).cut == "the answer is too large"


def test_an_internal_error_leaks_no_chat_completion_to_the_client():
    reader = chat().reader("", "", request_id="req_fake", estimate=lambda: 1 // 0)
    assert reader.feed(SAID) == reader.end() == b""
    assert reader.facts.cut == "ZeroDivisionError while it was translated"


@given(st.lists(st.binary(max_size=300)), st.booleans())
def test_no_bytes_raise(chunks, streams):
    result = CHAT.fed([b"data: {", *chunks], streams=streams)
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


def test_errors_have_anthropics_shape():
    status, body = chat().error(503, b'{"error":{"message":"busy"}}')
    assert status == 529
    assert json.loads(body) == {
        "type": "error",
        "error": {"type": "overloaded_error", "message": "fake: busy"},
    }


@pytest.mark.parametrize("name", ["gemini_signature", "gemini_signature_alone", "gemini_signature_first"])
def test_gemini_gets_its_signature_back_with_the_call_that_had_it(name):
    model = "gemini-3.5-flash"
    message = CHAT.case(name).translated(streams=False, dialect="gemini", model=model).message()
    calls = _again("gemini", model, message)["tool_calls"]
    assert calls[0]["extra_content"] == {"google": {"thought_signature": "Zm9v+/=="}}
    assert all("extra_content" not in call for call in calls[1:])


@pytest.mark.parametrize("case", CHAT.cases, ids=repr)
def test_every_answer_can_be_part_of_the_next_request(case):
    result = case.translated(streams=False)
    if result.cut or result.error is not None:
        return
    message = result.message()
    back = _again(case.options.get("dialect", "generic"), "m-0", message)
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
