"""What flows show of requests whose way was not the usual one: never a credential, whatever failed."""

import gzip
import json
import logging
from collections.abc import Iterator

import pytest
from mitmproxy import http

from signalbox.proxy.classify import is_refused_replay
from tests.support.answers import Answer, error_json, message_json
from tests.support.playbook import Playbook, PlayedRouter, Provider, played
from tests.support.played_wire import raw_request

KEY = "up-key-for-tests-0001"
ZAI = "zai-key-for-tests-0001"
LOGIN = "fake-login-of-nobody-01"
RULES = f"""
providers:
  anthropic: {{url: "http://home.invalid", auth: client}}
  up: {{url: "http://up.invalid", key: "{KEY}"}}
  zai: {{url: "http://zai.invalid", key: "{ZAI}"}}
rules:
  - {{match: "home-*", to: anthropic}}
  - {{match: "chain", to: [zai, up]}}
  - {{match: "*", to: up}}
log: {{level: debug}}
"""
SAID = {"role": "user", "content": f"My key is {KEY}"}
MASKED = b"My key is ***"


@pytest.fixture
def played_router(tmp_path) -> Iterator[PlayedRouter]:
    with played(tmp_path, RULES) as router:
        router.app.master.options.store_streamed_bodies = True
        yield router


@pytest.fixture
def upstream(played_router) -> Provider:
    """Gets requests that are passed on."""
    return played_router.provider("upstream")


def flow_of(play: Playbook) -> http.HTTPFlow:
    flow = play.flows[-1]
    assert isinstance(flow, http.HTTPFlow)
    return flow


def everything(flow: http.HTTPFlow) -> str:
    return json.dumps(flow.get_state(), default=repr)


def test_body_of_a_request_that_is_passed_on_after_an_error_is_masked(play, upstream):
    play.router.break_clock(KeyError("fault"), "request")
    play.asks("x", headers={"x-api-key": LOGIN}, messages=[SAID])
    assert play.attempts == "upstream:200"
    assert MASKED in flow_of(play).request.content
    assert upstream.requests[0].json["messages"] == [SAID]
    assert KEY not in everything(flow_of(play))


def test_body_of_a_request_that_is_passed_on_is_masked_before_the_answer_comes(play):
    play.router.break_clock(KeyError("fault"), "request")
    play.asks("x", headers={"x-api-key": LOGIN}, messages=[SAID])
    assert play.opening
    assert KEY not in everything(flow_of(play))
    assert MASKED in flow_of(play).request.content


def test_body_of_a_request_that_an_error_ends_is_masked(play):
    play.router.break_clock(KeyError("fault"), "request")
    assert play.ask("x", headers={"x-api-key": ""}, messages=[SAID]).status == 500
    assert MASKED in flow_of(play).request.content
    assert KEY not in everything(flow_of(play))


def test_body_that_was_prepared_for_a_provider_before_an_error_is_masked(play, up):
    def fails(record: logging.LogRecord) -> bool:
        if record.getMessage().startswith("dispatch:"):
            raise KeyError("fault")
        return True

    log = logging.getLogger("signalbox")
    log.setLevel("DEBUG")
    log.addFilter(fails)
    try:
        assert play.ask("x", messages=[SAID]).status == 500
    finally:
        log.removeFilter(fails)
    assert MASKED in flow_of(play).request.content
    assert not up.requests


@pytest.mark.parametrize("coding", ["gzip", "brotli-of-nobody"])
def test_nothing_is_shown_of_a_body_that_cannot_be_decoded(play, upstream, coding):
    sent = b"no " + coding.encode() + b" but " + KEY.encode()
    play.fetch("POST /v1/messages", sent, X_Api_Key=LOGIN, Content_Encoding=coding)
    flow = flow_of(play)
    assert upstream.requests[0].body == sent
    assert upstream.requests[0].header("content-encoding") == coding
    assert flow.request.content == b""
    assert flow.metadata["signalbox"]["request_length"] == len(sent)
    assert is_refused_replay(flow)


def test_nothing_is_shown_of_an_answer_in_an_encoding_that_is_not_known(play, home):
    packed = gzip.compress(LOGIN.encode())
    said = Answer(200, (("content-type", "application/json"), ("content-encoding", "foo")), (packed,))
    home.answer(said)
    assert packed in play.ask("home-x", headers={"x-api-key": LOGIN}).body
    assert flow_of(play).response.data.content == b""
    assert flow_of(play).metadata["signalbox"]["response_length"] == len(packed)


def test_reason_phrase_is_masked_where_it_is_shown_and_the_client_gets_it(play, home):
    body = message_json("claude").body
    head = (
        f"HTTP/1.1 200 Hello {LOGIN}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    home.answer(Answer(framing="raw", chunks=(head.encode() + body,), cut="close"))
    play.asks("home-x", stream=False, headers={"x-api-key": LOGIN})
    assert play.answer.startswith(f"HTTP/1.1 200 Hello {LOGIN}\r\n".encode())
    assert flow_of(play).response.reason == "Hello ***"
    assert LOGIN not in everything(flow_of(play))


def test_reason_phrase_with_the_routers_key_reaches_nobody(play, up):
    up.answer(Answer(framing="raw", chunks=(f"HTTP/1.1 429 {KEY}\r\nContent-Length: 0\r\n\r\n".encode(),)))
    assert KEY.encode() not in (play.ask("x"), play.answer)[1]
    assert KEY not in everything(flow_of(play))


def test_error_of_one_provider_that_repeats_anothers_key_is_reported_without_it(play, zai):
    zai.answer(error_json(529, "overloaded_error", f"no room for {KEY} and {LOGIN}"))
    play.asks("chain", headers={"x-api-key": LOGIN})
    play.refuses()
    assert play.got.status == 502
    assert "no room for *** and ***" in play.got.error["message"]
    flow = flow_of(play)
    assert flow.metadata["signalbox"]["failed"] == [
        "zai/chain: 529, overloaded_error: no room for *** and ***"
    ]
    assert KEY not in everything(flow)
    assert LOGIN not in everything(flow)


def test_other_bodies_that_pass_are_not_stored_as_they_came(play, upstream):
    """A login is given out on such a path."""
    upstream.answer(Answer(200, (("content-type", "application/json"),), (b'{"token": "of-nobody"}',)))
    got = play.fetch("POST /v1/oauth/token", b'{"code": "of-nobody"}')
    assert b"of-nobody" in got.body
    assert b"of-nobody" in upstream.requests[0].body
    assert "of-nobody" not in everything(flow_of(play))


def test_body_of_a_message_that_only_passes_is_masked_before_its_answer_comes(tmp_path):
    with played(tmp_path, f"clients: {{me: {KEY}}}\n") as router:
        router.app.master.options.store_streamed_bodies = True
        play = router.connect()
        sent = json.dumps({"model": "x", "messages": [SAID]}).encode()
        play.client_sends(raw_request("POST /v1/messages", sent, X_Signalbox_Client=KEY))
        play.connects()
        flow = flow_of(play)
        assert MASKED in flow.request.content
        assert KEY not in everything(flow)
        assert play.asked[-1].body == sent
