"""A target fails before its answer began: the next one answers, and the client notices nothing."""

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from tests.answers import (
    USAGE,
    Answer,
    error_json,
    event,
    json_answer,
    message_events,
    message_json,
    message_sse,
    sse,
    text_block,
)
from tests.running import Router
from tests.upstream import Upstream

ROUTER = Router

LOGIN = "Bearer sk-ant-oat01-fake-login-of-nobody"


def rules(home: Upstream, zai: Upstream, more: str = "") -> str:
    return f"""
providers:
  anthropic: {{url: "{home.url}", auth: client}}
  zai: {{url: "{zai.url}/api/anthropic", key: zai-key-for-tests-0001, circuit: {{open_after: 1000}}}}
  tired: {{url: "{zai.url}", key: tired-key-for-tests-01}}
  spare: {{url: "{home.url}", auth: client}}
  dead: {{url: "http://127.0.0.1:1", key: dead-key-for-tests-001, circuit: {{open_after: 1000}}}}
  nowhere: {{url: "http://nowhere.invalid", key: dead-key-for-tests-001}}
rules:
  - {{match: "to-zai-*", to: [zai, anthropic/claude-opus-4-5]}}
  - {{match: "one-alone", to: tired}}
  - {{match: "another-alone", to: tired}}
  - {{match: "refused", to: [zai/three, {{reject: 418, message: no}}]}}
  - {{match: "to-both", to: [zai, spare/claude-opus-4-5]}}
  - {{match: "dead", to: [dead, anthropic/claude-opus-4-5]}}
  - {{match: "nowhere", to: [nowhere, anthropic/claude-opus-4-5]}}
  - {{match: "all-dead", to: [dead, nowhere]}}
{more}
"""


def question(model: str, stream: bool = True) -> bytes:
    message = {"role": "user", "content": "x"}
    return json.dumps({"model": model, "stream": stream, "messages": [message]}).encode()


def assert_homes_own(home: Upstream, body: bytes) -> None:
    """What the next target got is its own in all its parts, once."""
    (then,) = home.requests
    assert then.path == "/v1/messages?beta=true"
    assert then.header("host") == f"127.0.0.1:{home.port}"
    assert then.header("x-api-key") is None
    assert then.header("authorization") == LOGIN
    assert then.body == body


@pytest.fixture
def ask(router: Router, request: pytest.FixtureRequest) -> Iterator[Callable[..., http.client.HTTPResponse]]:
    with ExitStack() as opened:

        def ask(model: str, stream: bool = True, **headers: str) -> http.client.HTTPResponse:
            connection = http.client.HTTPConnection("127.0.0.1", router.ports[0], timeout=15)
            opened.callback(connection.close)
            usual = {"Authorization": LOGIN, "X-Claude-Code-Session-Id": request.node.name}
            connection.request("POST", "/v1/messages?beta=true", question(model, stream), usual | headers)
            return opened.enter_context(connection.getresponse())

        yield ask


@pytest.fixture
def model(named: Callable[[str], str]) -> str:
    """A model of which nothing is known yet."""
    return named("to-zai")


FAILURES: dict[str, tuple[Answer, str]] = {
    **{
        str(status): (error_json(status, kind, "scripted"), str(status))
        for status, kind in [
            (408, "timeout_error"),
            (500, "api_error"),
            (502, "api_error"),
            (503, "api_error"),
            (504, "timeout_error"),
            (529, "overloaded_error"),
        ]
    },
    "an HTML page": (Answer(502, (("Content-Type", "text/html"),), (b"<html>Bad gateway</html>",)), "502"),
    "closed": (Answer(framing="raw", cut="close"), "connect"),
    "reset": (Answer(framing="raw", cut="reset"), "connect"),
    "no HTTP": (Answer(framing="raw", chunks=(b"SSH-2.0-no\r\n\r\n",), cut="close"), "connect"),
    "an empty stream": (sse(), "stream_error"),
    "a stream that ends early": (sse(event("ping")), "stream_error"),
    "a stream that is cut early": (sse(event("ping"), cut="reset"), "stream_error"),
    "an error before the answer": (
        sse(
            *message_events("glm", [text_block("")], [], USAGE, USAGE)[:3],
            event("error", error={"type": "overloaded_error", "message": "Overloaded"}),
        ),
        "stream_error",
    ),
    "200 with an error": (json_answer({"error": {"message": "no model is loaded"}}), "stream_error"),
}


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize(("failure", "label"), FAILURES.values(), ids=FAILURES)
def test_the_next_target_takes_over(shared, ask, model, failure, label, stream):
    shared.second.answer(failure)
    answer = ask(model, stream)
    body = answer.read()
    whole = message_sse("claude-opus-4-5") if stream else message_json("claude-opus-4-5")
    assert answer.status == 200
    assert body == whole.body.replace(b'"claude-opus-4-5"', f'"{model}"'.encode())
    assert answer.headers["x-signalbox-attempts"] == f"zai:{label} anthropic:200"
    assert answer.headers["x-signalbox-provider"] == "anthropic"
    assert answer.headers["x-signalbox-model"] == "claude-opus-4-5"
    assert "x-should-retry" not in answer.headers
    assert_homes_own(shared.upstream, question("claude-opus-4-5", stream))


def test_each_attempt_gets_the_url_host_key_model_and_body_of_its_own_target(shared, ask, model):
    shared.second.answer(error_json(500, "api_error"))
    ask(model, **{"anthropic-beta": "oauth-2025-04-20"}).read()
    first, then = shared.second.wait_for(1)[0], shared.upstream.wait_for(1)[0]
    assert first.path == "/api/anthropic/v1/messages?beta=true"
    assert first.header("host") == f"127.0.0.1:{shared.second.port}"
    assert first.header("x-api-key") == "zai-key-for-tests-0001"
    assert first.header("authorization") is None
    assert first.header("anthropic-beta") is None
    assert first.body == question(model)
    assert then.header("anthropic-beta") == "oauth-2025-04-20"
    assert_homes_own(shared.upstream, question("claude-opus-4-5"))


@pytest.mark.parametrize("model", ["dead", "nowhere"])
def test_a_provider_that_cannot_be_reached_is_passed_by(shared, ask, model):
    answer = ask(model)
    assert answer.status == 200
    assert answer.headers["x-signalbox-attempts"] == f"{model}:connect anthropic:200"
    assert_homes_own(shared.upstream, question("claude-opus-4-5"))


def test_when_all_fail_the_client_gets_the_last_ones_own_answer(shared, ask):
    shared.second.answer(error_json(500, "api_error"))
    last = error_json(429, "rate_limit_error", "slow down", headers=(("retry-after", "17"),))
    shared.upstream.answer(last)
    answer = ask("to-both")
    assert answer.status == 429
    assert answer.headers["retry-after"] == "17"
    assert answer.headers["x-signalbox-attempts"] == "zai:500 spare:429"
    assert answer.read() == last.body


def test_when_nobody_can_be_reached_the_last_one_is_named(ask):
    answer = ask("all-dead")
    assert answer.status == 502
    assert json.loads(answer.read())["error"]["message"].startswith("nowhere could not be reached")
    assert answer.headers["x-signalbox-attempts"] == "dead:connect nowhere:connect"


def test_an_error_that_is_the_requests_own_is_not_tried_elsewhere(shared, ask, model):
    wrong = error_json(400, "invalid_request_error", "messages: at least one message is required")
    shared.second.answer(wrong)
    answer = ask(model)
    assert answer.status == 400
    assert answer.read() == wrong.body
    assert not shared.upstream.requests


def test_after_an_answer_has_begun_a_cut_stays_a_cut(shared, ask, model):
    events = message_events("glm", [text_block("")], ["half"], USAGE, USAGE)
    shared.second.answer(sse(*events[:4], cut="reset"))
    answer = ask(model)
    with pytest.raises(http.client.IncompleteRead) as cut:
        answer.read()
    assert b"half" in cut.value.partial
    assert not shared.upstream.requests


def test_a_providers_rate_limits_do_not_stand_on_anothers_answer(shared, ask, model):
    limits = (("anthropic-ratelimit-unified-status", "rejected"), ("x-of", "zai"))
    shared.second.answer(error_json(529, "overloaded_error", headers=limits))
    answer = ask(model)
    assert answer.headers["anthropic-ratelimit-unified-status"] is None
    assert answer.headers["x-of"] is None


def test_a_failover_is_recorded_and_told(shared, ask, model, request):
    shared.second.answer(error_json(500, "api_error", "broken inside"))
    ask(model).read()
    record: dict[str, Any] = shared.router.records(1, session=request.node.name)[0]
    assert record["attempts"] == "zai:500 anthropic:200"
    assert record["backend"] == "anthropic"
    assert record["status"] == "success"
    shared.router.wait_log(r"↻ zai 500 → anthropic: .*broken inside")
    shared.router.wait_log(r"650→17 \d+ms ↻ 2 attempts")


SAID = error_json(429, "rate_limit_error", "slow down", headers=(("retry-after", "50"),))


@pytest.mark.parametrize("cut", ["close", None], ids=["cut", "never ended"])
def test_an_error_whose_body_is_not_whole_keeps_its_status(shared, ask, cut):
    never = threading.Event()
    ending = () if cut else (never,)
    shared.second.answer(Answer(429, SAID.headers, (*SAID.chunks, *ending), "chunked", cut=cut))
    answer = ask("one-alone" if cut else "another-alone")
    assert answer.status == 429
    assert answer.headers["retry-after"] == "50"
    assert answer.read() == SAID.body
    never.set()


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200),
        Answer(200, (("Content-Type", "text/html"),), (b"<html>log in first</html>",)),
        Answer(200, (("Content-Type", "application/json"),), (event("error", error={"type": "x"}),)),
    ],
    ids=["empty", "a page", "an error that does not say it is streamed"],
)
def test_a_200_that_is_no_answer_gives_way_to_the_next(shared, ask, model, answer):
    shared.second.answer(answer)
    assert ask(model).headers["x-signalbox-attempts"] == "zai:stream_error anthropic:200"


def test_a_stream_that_does_not_say_that_it_is_one_is_not_kept_waiting(shared, ask, model):
    go_on = threading.Event()
    events = message_events(model, [text_block("")], ["one", "two"], USAGE, USAGE)
    shared.second.answer(Answer(200, (), (*events[:4], go_on, *events[4:]), "chunked"))
    answer = ask(model)
    seen = b""
    while b'"one"' not in seen:
        seen += answer.read1()
    go_on.set()
    assert answer.headers["x-signalbox-attempts"] == "zai:200"


def test_counting_tokens_gives_the_providers_own_error_and_no_rules_refusal(shared, router):
    wrong = error_json(500, "api_error")
    shared.second.answer(wrong)
    connection = http.client.HTTPConnection("127.0.0.1", router.ports[0], timeout=15)
    with closing(connection):
        connection.request("POST", "/v1/messages/count_tokens", b'{"model":"refused"}')
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (500, wrong.body)
