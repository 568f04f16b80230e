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
from tests.support.raw_client import both

TEXT = "Hello there"


def rules(upstream, second):
    return f"""
providers:
  anthropic: {{url: '{upstream.url}', auth: client}}
  zai: {{url: '{second.url}', key: fake-key-of-zai, circuit: {{open_after: 1000}}}}
  chat: {{url: '{second.url}/v1', key: fake-key-of-chat, api: openai}}
failover: {{on: [500, 529, stream_error]}}
rules:
  - {{match: 'home-*', to: anthropic}}
  - {{match: 'zai-*', to: zai}}
  - {{match: 'chain-*', to: [zai, anthropic]}}
  - {{match: 'chat-*', to: chat}}
"""


def said(answer, stream: bool) -> str:
    """The text of an answer in the form asked for."""
    kind = answer.headers["content-type"].partition(";")[0]
    assert kind == ("text/event-stream" if stream else "application/json")
    blocks = read_stream(answer.body) if stream else json.loads(answer.body)["content"]
    return "".join(block["text"] for block in blocks)


def other(stream: bool, **more) -> Answer:
    """An answer of the other form."""
    return message_json(**more) if stream else message_sse(**more)


@both
@pytest.mark.parametrize("coding", ["", "gzip"])
@pytest.mark.parametrize("model", ["home-x", "zai-x", "chain-x"])
def test_an_answer_of_the_other_form_is_turned_into_the_one_asked_for(
    caller, router, home, up, model, coding, stream
):
    answer = compressed(other(stream), coding) if coding else other(stream)
    (home if model == "home-x" else up).answer(answer)
    caller.ask(model, stream=stream)
    told = caller.answer()
    assert (told.status, said(told, stream)) == (200, TEXT)
    record = router.records(1, session=caller.session)[0]
    assert {name: record[name] for name in USAGE} == USAGE
    assert record["status"] == "success"


@both
@pytest.mark.parametrize("model", ["home-x", "zai-x", "chain-x"])
def test_an_answer_of_the_form_asked_for_passes_byte_for_byte(caller, home, up, model, stream):
    answer = message_sse(model=model) if stream else message_json(model=model)
    (home if model == "home-x" else up).answer(answer)
    caller.ask(model, stream=stream)
    assert caller.answer().body == answer.body


OVERLOADED = {"type": "overloaded_error", "message": "Overloaded"}
FAILURES = {
    "an error": (json_answer({"type": "error", "error": OVERLOADED}), sse(event("error", error=OVERLOADED))),
    "another protocol": (completion(TEXT), chat_stream(text_stream(TEXT))),
    "no end": (Answer(200, (), (b'{"type":"message","con',), "close"), sse(*message_sse().chunks[:4])),
    "a cut": (replace(message_json(), length=9999, cut="close"), sse(*message_sse().chunks[:4], cut="close")),
}


@both
@pytest.mark.parametrize("kind", FAILURES)
def test_one_of_the_other_form_that_fails_before_it_has_begun_fails_over(
    caller, router, home, up, named, kind, stream
):
    up.answer(FAILURES[kind][not stream])
    home.answer(message_sse() if stream else message_json())
    caller.ask(named("chain"), stream=stream)
    assert said(caller.answer(), stream) == TEXT
    attempts = router.records(1, session=caller.session)[0]["attempts"]
    assert attempts == "zai:stream_error anthropic:200"


@both
@pytest.mark.parametrize("model", ["home-x", "zai-x"])
def test_an_error_in_an_answer_of_the_other_form_has_its_status(caller, home, up, model, stream):
    (home if model == "home-x" else up).answer(FAILURES["an error"][not stream])
    caller.ask(model, stream=stream)
    told = caller.answer()
    assert (told.status, json.loads(told.body)["error"]) == (529, OVERLOADED)


def test_a_stream_that_breaks_off_is_no_whole_answer(caller, up):
    up.answer(replace(message_sse(), chunks=message_sse().chunks[:4]))
    caller.ask("zai-x", stream=False)
    told = caller.answer()
    assert told.status == 502
    assert "the stream ended before its message did" in json.loads(told.body)["error"]["message"]


def test_a_stream_is_whole_though_its_connection_stays_open(caller, up, never):
    up.answer(sse(*message_sse().chunks, never))
    caller.ask("zai-x", stream=False)
    assert said(caller.answer(), stream=False) == TEXT


def test_a_stream_that_does_not_say_that_it_is_one_comes_at_once(caller, up):
    go_on = threading.Event()
    events = message_sse().chunks
    up.answer(Answer(200, (), (*events[:4], go_on, *events[4:]), "chunked"))
    caller.ask("zai-x", stream=True)
    caller.until(b'"text":"Hello"')
    go_on.set()
    assert said(caller.answer(), stream=True) == TEXT


@both
def test_chat_completions_of_the_other_form_are_turned_too(caller, up, stream):
    up.answer(completion(TEXT) if stream else chat_stream(text_stream("Hello", " there")))
    caller.ask("chat-x", stream=stream)
    assert said(caller.answer(), stream) == TEXT
