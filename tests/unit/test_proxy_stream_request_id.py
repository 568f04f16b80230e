"""Each answer says by which id its request is known: the provider's, or one of the router's."""

import json
import re
import threading

import pytest

from tests.support import chat
from tests.support.answers import Answer, error_json, json_answer
from tests.support.raw_client import both

RULES = """
providers:
  anthropic: {url: "http://home.invalid", auth: client, circuit: {open_after: 1000}}
  up: {url: "http://up.invalid/v1", api: openai, circuit: {open_after: 1000}}
  slow: {url: "http://up.invalid/v1", api: openai, timeout: {first_byte: 300ms}}
  dead: {url: "http://dead.invalid", key: dead-key-for-tests}
  unset: {url: "http://dead.invalid", key: "${NOT_SET_IN_TESTS}"}
limits: {body: 100KB}
rules:
  - {match: "dead-*", to: dead}
  - {match: "slow-*", to: slow}
  - {match: "unset-*", to: unset}
  - {match: "reject-*", to: [{reject: 400, message: Not here.}]}
  - {match: "up-then-dead-*", to: [up, dead]}
  - {match: "up-then-home-*", to: [up, anthropic]}
  - {match: "home-*", to: anthropic}
  - {match: "*", to: up}
"""
OWN = re.compile(r"req_[0-9a-f-]{36}")
SEARCH = {"type": "web_search_20250305", "name": "web_search"}


def with_header(answer: Answer, name: str, value: str) -> Answer:
    return Answer(answer.status, (*answer.headers, (name, value)), answer.chunks, answer.framing)


@pytest.mark.parametrize(
    ("header", "id"),
    [
        ("X-Request-Id", "req_of_the_provider"),
        ("apim-request-id", "00000000-0000-0000-0000-0000000fake0"),
        ("X-Generation-Id", "gen-1700000000-fake"),
    ],
)
def test_an_answer_has_the_id_by_which_its_provider_knows_it(play, up, header, id):
    up.answer(with_header(chat.completion(), header, id))
    assert play.ask("x").headers["request-id"] == id


@both
def test_an_answer_without_one_has_an_id_of_the_routers(play, up, stream):
    up.answer(chat.stream(chat.text_stream()) if stream else chat.completion())
    assert OWN.fullmatch(play.ask("x", stream=stream).headers["request-id"])


@both
@pytest.mark.parametrize(("status", "told"), [(400, 400), (401, 403), (429, 429), (500, 500), (503, 529)])
def test_an_error_of_the_provider_has_its_id_in_head_and_body(play, up, status, told, stream):
    up.answer(with_header(chat.error(status, "no"), "x-request-id", "req_of_the_error"))
    got = play.ask("x", stream=stream)
    assert got.status == told
    assert got.headers["request-id"] == json.loads(got.body)["request_id"] == "req_of_the_error"


@both
@pytest.mark.parametrize(
    ("model", "status", "more"),
    [
        ("dead-x", 502, {}),
        ("slow-x", 504, {}),
        ("unset-x", 503, {}),
        ("reject-x", 400, {}),
        ("tools-x", 400, {"tools": [SEARCH]}),
        ("empty-x", 529, {}),
        ("large-x", 413, {"messages": [{"role": "user", "content": "x" * 200_000}]}),
    ],
)
def test_an_error_of_the_router_has_an_id_of_its_own(play, up, model, status, more, stream):
    up.answer(sse_of_nothing() if model == "slow-x" else chat.completion(""))
    play.asks(model, stream=stream, **more)
    if model == "dead-x":
        play.refuses()
    if model == "slow-x":
        play.passes(1)
    assert play.got.status == status
    assert OWN.fullmatch(play.got.headers["request-id"])
    assert json.loads(play.got.body)["request_id"] == play.got.headers["request-id"]


def sse_of_nothing() -> Answer:
    """Not even a head comes."""
    return Answer(framing="raw", chunks=(threading.Event(),))


def test_an_error_within_an_answer_has_the_id_of_its_head(play, up):
    fault = b'data: {"error": {"message": "out of memory", "code": 503}}\n\n'
    up.answer(chat.stream([chat.chunk({"content": "Hel"}), fault], [("x-request-id", "req_of_the_stream")]))
    got = play.ask("x", stream=True)
    assert got.headers["request-id"] == "req_of_the_stream"
    assert json.loads(got.body.rpartition(b"event: error\ndata: ")[2])["request_id"] == "req_of_the_stream"


def test_the_id_of_a_failed_attempt_names_no_other(play, up, home):
    up.answer(with_header(chat.error(500, "no"), "x-request-id", "req_of_the_first"))
    play.asks("up-then-dead-x")
    play.refuses()
    assert OWN.fullmatch(play.got.headers["request-id"])
    home.answer(with_header(error_json(500, "api_error"), "request-id", "req_of_the_second"))
    assert play.ask("up-then-home-x").headers["request-id"] == "req_of_the_second"


def test_an_anthropic_error_stays_as_it_is(play, home):
    error = {
        "type": "error",
        "error": {"type": "api_error", "message": "no"},
        "request_id": "req_of_anthropic",
    }
    home.answer(with_header(json_answer(error, 500), "request-id", "req_of_anthropic"))
    got = play.ask("home-x")
    assert got.headers["request-id"] == "req_of_anthropic"
    assert json.loads(got.body) == error


@pytest.mark.parametrize("value", ["", "req\tid", "x" * 300, '"quoted"'])
def test_what_could_be_no_id_is_none(play, up, value):
    up.answer(with_header(chat.completion(), "x-request-id", value))
    assert OWN.fullmatch(play.ask("x").headers["request-id"])
