"""Answers that are whole where a stream was asked for, or the other way round."""

import json
import threading
from dataclasses import replace

import pytest

from tests.support.answers import (
    USAGE,
    Answer,
    compressed,
    event,
    json_answer,
    message_json,
    message_sse,
    sse,
)
from tests.support.chat import completion, text_stream
from tests.support.chat import stream as chat_stream
from tests.support.conversation import read_stream
from tests.support.played_wire import Got
from tests.support.raw_client import both

TEXT = "Hello there"
RULES = """
providers:
  anthropic: {url: "http://home.invalid", auth: client}
  zai: {url: "http://zai.invalid", key: fake-key-of-zai, circuit: {open_after: 1000}}
  chat: {url: "http://chat.invalid/v1", key: fake-key-of-chat, api: openai}
failover: {on: [500, 529, stream_error]}
rules:
  - {match: "home-*", to: anthropic}
  - {match: "zai-*", to: zai}
  - {match: "chain-*", to: [zai, anthropic]}
  - {match: "renamed-*", to: zai/glm}
  - {match: "chat-*", to: chat}
"""


def text_of(got: Got, stream: bool) -> str:
    """The text of an answer in the form asked for."""
    assert got.state == "ended"
    kind = got.headers["content-type"].partition(";")[0]
    assert kind == ("text/event-stream" if stream else "application/json")
    blocks = read_stream(got.body) if stream else json.loads(got.body)["content"]
    return "".join(block["text"] for block in blocks)


def other(stream: bool, **more) -> Answer:
    """An answer of the other form."""
    return message_json(**more) if stream else message_sse(**more)


@both
@pytest.mark.parametrize("coding", ["", "gzip"])
@pytest.mark.parametrize("model", ["home-x", "zai-x", "chain-x"])
def test_an_answer_of_the_other_form_is_turned_into_the_one_asked_for(play, home, zai, model, coding, stream):
    answer = compressed(other(stream), coding) if coding else other(stream)
    (home if model == "home-x" else zai).answer(answer)
    got = play.ask(model, stream=stream)
    assert (got.status, text_of(got, stream)) == (200, TEXT)
    record = play.records(1)[0]
    assert {name: record[name] for name in USAGE} == USAGE
    assert record["status"] == "success"


@both
@pytest.mark.parametrize("model", ["home-x", "zai-x", "chain-x"])
def test_an_answer_of_the_form_asked_for_passes_byte_for_byte(play, home, zai, model, stream):
    answer = message_sse(model=model) if stream else message_json(model=model)
    (home if model == "home-x" else zai).answer(answer)
    assert play.ask(model, stream=stream).body == answer.body


OVERLOADED = {"type": "overloaded_error", "message": "Overloaded"}
FAILURES = {
    "an error": (json_answer({"type": "error", "error": OVERLOADED}), sse(event("error", error=OVERLOADED))),
    "another protocol": (completion(TEXT), chat_stream(text_stream(TEXT))),
    "no end": (Answer(200, (), (b'{"type":"message","con',), "close"), sse(*message_sse().chunks[:4])),
    "a cut": (replace(message_json(), length=9999, cut="close"), sse(*message_sse().chunks[:4], cut="close")),
}


@both
@pytest.mark.parametrize("kind", FAILURES)
def test_one_of_the_other_form_that_fails_before_it_has_begun_fails_over(play, home, zai, kind, stream):
    zai.answer(FAILURES[kind][not stream])
    home.answer(message_sse() if stream else message_json())
    assert text_of(play.ask("chain-x", stream=stream), stream) == TEXT
    assert play.records(1)[0]["attempts"] == "zai:stream_error anthropic:200"


@both
@pytest.mark.parametrize("model", ["home-x", "zai-x"])
def test_an_error_in_an_answer_of_the_other_form_has_its_status(play, home, zai, model, stream):
    (home if model == "home-x" else zai).answer(FAILURES["an error"][not stream])
    got = play.ask(model, stream=stream)
    assert (got.status, got.error) == (529, OVERLOADED)


@both
@pytest.mark.parametrize("model", ["zai-x", "renamed-x"])
@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("overloaded_error", 529),
        ("rate_limit_error", 429),
        ("invalid_request_error", 400),
        ("not_found_error", 404),
        ("api_error", 500),
    ],
)
def test_an_error_that_came_with_200_gets_the_status_of_its_type(play, zai, kind, status, model, stream):
    error = {"type": kind, "message": "what the provider says"}
    zai.answer(json_answer({"type": "error", "error": error}))
    got = play.ask(model, stream=stream)
    assert (got.status, got.error, got.headers["content-type"]) == (status, error, "application/json")
    assert got.headers["x-signalbox-attempts"] == "zai:stream_error"
    assert play.records(1)[0]["status"] == "error"


@both
def test_a_key_refused_with_200_is_no_401_for_claude_code(play, zai, stream):
    zai.answer(json_answer({"type": "error", "error": {"type": "authentication_error", "message": "bad"}}))
    got = play.ask("zai-x", stream=stream)
    assert (got.status, got.error) == (403, {"type": "permission_error", "message": "zai: bad"})


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (b'event: error\ndata: {"error":{"message":"boom","code":"500"}}\n\n', "boom"),
        (b'data: {"error":{"message":"boom","code":"500"}}\n\n', "zai gave no answer: boom"),
    ],
    ids=["named", "unnamed"],
)
def test_an_error_of_another_shape_in_a_stream_is_put_into_anthropics(play, zai, error, said):
    zai.answer(sse(error))
    got = play.ask("zai-x", stream=True)
    told = json.loads(got.body.removeprefix(b"event: error\ndata: "))
    assert (told["type"], told["error"]) == ("error", {"type": "api_error", "message": said})
    got = play.ask("zai-x")
    assert (got.status, got.error) == (500, {"type": "api_error", "message": "boom"})
    assert got.headers["x-signalbox-attempts"] == "zai:stream_error"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"event: error\ndata: oops\n\n", "it could not be read as an answer of the Messages API"),
        (b"data: [DONE]\n\n", "the stream ended before its message did"),
    ],
)
def test_a_stream_without_a_message_is_told_in_plain_words(play, zai, data, why):
    zai.answer(sse(data))
    got = play.ask("zai-x")
    assert (got.status, got.error["message"]) == (502, f"zai gave no whole answer: {why}")


def test_a_stream_that_ends_as_other_protocols_do_is_whole(play, zai):
    *events, _stop = message_sse().chunks
    zai.answer(sse(*events, b"data: [DONE]\n\n"))
    assert text_of(play.ask("zai-x"), stream=False) == TEXT


LABELS = {True: "text/event-stream", False: "application/json"}


def mislabelled(stream: bool, answer: Answer, *padding: bytes) -> Answer:
    """An answer of the other form with the label of the form that was asked for."""
    return replace(answer, headers=(("Content-Type", LABELS[stream]),), chunks=(*padding, *answer.chunks))


@both
@pytest.mark.parametrize("padding", [(), (b"\n", b" ")])
@pytest.mark.parametrize("model", ["zai-x", "chain-x"])
def test_the_first_byte_tells_the_form_whatever_the_label_says(play, zai, model, padding, stream):
    zai.answer(mislabelled(stream, other(stream), *padding))
    got = play.ask(model, stream=stream)
    assert (got.status, text_of(got, stream)) == (200, TEXT)
    record = play.records(1)[0]
    assert {name: record[name] for name in USAGE} == USAGE
    assert record["status"] == "success"
    assert play.client not in play.closed


@both
def test_a_byte_order_mark_tells_no_form(play, zai, stream):
    answer = message_sse() if stream else message_json()
    zai.answer(replace(answer, chunks=(b"\xef\xbb\xbf", *answer.chunks)))
    got = play.ask("zai-x", stream=stream)
    assert (got.status, got.state) == (200, "ended")
    assert b"Hello" in got.body
    assert play.records(1)[0]["status"] == "success"


@both
def test_a_mislabelled_error_fails_over(play, home, zai, stream):
    zai.answer(mislabelled(stream, FAILURES["an error"][not stream]))
    home.answer(message_sse() if stream else message_json())
    assert text_of(play.ask("chain-x", stream=stream), stream) == TEXT


@both
def test_a_mislabelled_error_of_the_last_target_is_told_in_the_form_asked_for(play, zai, stream):
    zai.answer(mislabelled(stream, FAILURES["an error"][not stream]))
    got = play.ask("zai-x", stream=stream)
    said = got.body.removeprefix(b"event: error\ndata: ") if stream else got.body
    assert (got.status, json.loads(said)["error"]) == (200 if stream else 529, OVERLOADED)


def test_a_stream_that_breaks_off_is_no_whole_answer(play, zai):
    zai.answer(replace(message_sse(), chunks=message_sse().chunks[:4]))
    got = play.ask("zai-x")
    assert got.status == 502
    assert "the stream ended before its message did" in got.error["message"]


def test_a_stream_is_whole_though_its_connection_stays_open(play, zai):
    zai.answer(sse(*message_sse().chunks, threading.Event()))
    play.ask("zai-x")
    play.passes(3)  # its usage might still come
    assert text_of(play.got, stream=False) == TEXT


def test_a_stream_that_does_not_say_that_it_is_one_comes_at_once(play):
    events = message_sse().chunks
    play.asks("zai-x")
    asked = play.answers(Answer(200, (), (*events[:4], threading.Event()), "chunked"))
    assert b'"text":"Hello"' in play.got.body
    rest = sse(*events[4:])
    play.sends(asked.server, b"".join(map(rest.frame, rest.chunks)) + b"0\r\n\r\n")
    assert text_of(play.got, stream=True) == TEXT


@both
def test_chat_completions_of_the_other_form_are_turned_too(play, played_router, stream):
    chat = played_router.provider("chat")
    chat.answer(completion(TEXT) if stream else chat_stream(text_stream("Hello", " there")))
    assert text_of(play.ask("chat-x", stream=stream), stream) == TEXT
