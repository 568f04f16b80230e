"""What an attempt is taken for: what opens a circuit, whose key is refused, who is asked after all failed."""

import http.client
import json
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any, NamedTuple

import pytest

from tests.answers import (
    USAGE,
    Answer,
    Chunk,
    error_json,
    event,
    json_answer,
    message_events,
    message_json,
    message_sse,
    sse,
    text_block,
)
from tests.callers import LOGIN, Caller
from tests.conftest import Shared
from tests.running import Router
from tests.upstream import Received, Upstream

ROUTER = Router

KEYS = ["zai-key-for-tests-0001", "zai-key-for-tests-0002"]
NEVER = "circuit: {open_after: 1000, degraded_after: 1000}"
BREAKER = "circuit: {degraded_after: 3, open_after: 5, cooldown: 1h}"


def rules(home: Upstream, zai: Upstream) -> str:
    """A provider for each test, so that none meets what another one left in cooldown."""
    breaking = ["cut", "silent", "reported", "unfinished", "undecodable", "counted"]
    providers = [
        f'  home: {{url: "{home.url}", key: home-key-for-tests-01, {NEVER}}}',
        f'  login: {{url: "{home.url}", auth: client, {NEVER}}}',
        f'  dead: {{url: "http://127.0.0.1:1", key: dead-key-for-tests-01, {NEVER}}}',
        f'  chat: {{url: "{home.url}", api: openai, key: chat-key-for-tests-01}}',
        '  keyless: {url: "http://127.0.0.1:1", key: "${NOT_SET_IN_TESTS}"}',
        f'  many: {{url: "{zai.url}", keys: [{", ".join(KEYS)}], {NEVER}}}',
        f'  open: {{url: "{zai.url}", key: {KEYS[0]}, circuit: {{open_after: 1, cooldown: 1h}}}}',
        *(
            f'  {name}: {{url: "{zai.url}", key: {KEYS[0]}, {BREAKER}, timeout: {{idle: 150ms}}}}'
            for name in breaking
        ),
        *(
            f'  {name}: {{url: "{zai.url}", key: {KEYS[0]}, {NEVER}}}'
            for name in ("brief", "long", "spent", "zai", "own", "messages", "windows")
        ),
    ]
    rows = [
        *(f"  - {{match: {name}, to: {name}}}" for name in (*breaking, "own", "login")),
        "  - {match: many, to: [many, home]}",
        "  - {match: last-resort, to: [brief, open, long, keyless, home]}",
        "  - {match: nobody, to: [spent, dead, dead/other, keyless]}",
        "  - {match: disabled, to: [login, zai]}",
        "  - {match: messages, to: [messages, home]}",
        "  - {match: warm, to: [zai, chat]}",
        "  - {match: windows, to: [windows, home]}",
        '  - {match: "lone-*", to: zai}',
        "  - {match: no-key, to: keyless}",
    ]
    return "\n".join(["providers:", *providers, "rules:", *rows])


class Told(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def attempts(self) -> str | None:
        return self.headers["x-signalbox-attempts"]

    @property
    def error(self) -> Any:
        return json.loads(self.body)["error"]


type Ask = Callable[..., Told]


@pytest.fixture
def ask(shared: Shared, request: pytest.FixtureRequest) -> Ask:
    """Takes a model; an answer that is cut short ends where it is cut. The session is the test's name."""
    headers = {"Authorization": LOGIN, "X-Claude-Code-Session-Id": request.node.name}

    def ask(model: str, *, stream: bool = False, path: str = "/v1/messages") -> Told:
        body = json.dumps({"model": model, "stream": stream, "messages": [{"role": "user", "content": "x"}]})
        with closing(http.client.HTTPConnection("127.0.0.1", shared.router.ports[0], timeout=20)) as line:
            line.request("POST", path, body, headers)
            answer = line.getresponse()
            try:
                said = answer.read()
            except http.client.IncompleteRead as cut:
                said = cut.partial
            return Told(answer.status, answer.headers, said)

    return ask


@pytest.fixture
def count(ask: Ask) -> Ask:
    return lambda model: ask(model, path="/v1/messages/count_tokens")


def stands(router: Router, provider: str) -> dict[str, Any]:
    told: dict[str, Any] = router.health()["providers"][provider]
    return told


# what opens a circuit


def begun(*then: Chunk, cut: Any = None) -> Answer:
    return sse(*message_events("glm", [text_block("")], ["half"], USAGE, USAGE)[:4], *then, cut=cut)


OVERLOADED = event("error", error={"type": "api_error", "message": "broken inside"})
GARBLED = Answer(
    200, (*sse().headers, ("Content-Encoding", "gzip")), (b"\x1f\x8b\x08\x00no gzip at all",), "chunked"
)


@pytest.mark.parametrize(
    ("model", "answer"),
    [
        ("cut", begun(cut="reset")),
        ("silent", begun(5.0)),
        ("reported", begun(OVERLOADED)),
        ("unfinished", begun()),
        ("undecodable", GARBLED),
    ],
)
def test_answers_that_begin_and_then_break_off_open_the_circuit(shared, ask, model, answer):
    shared.second.answer(answer)
    states = []
    for _ in range(5):
        told = ask(model, stream=True)
        assert told.attempts in (f"{model}:200", f"{model}:stream_error")
        states.append(stands(shared.router, model)["circuit"])
    assert states == ["closed", "closed", "degraded", "degraded", "open"]


def test_one_answer_that_comes_to_its_end_is_a_success(shared, ask):
    whole = message_sse("glm")
    shared.second.answer(*[begun(cut="reset")] * 4, whole, begun(cut="reset"), whole)
    states = [ask("counted", stream=True) and stands(shared.router, "counted")["circuit"] for _ in range(6)]
    assert states == ["closed", "closed", "degraded", "degraded", "closed", "closed"]


# when all have failed


def test_those_in_a_short_cooldown_or_with_an_open_circuit_are_asked_before_the_client_gets_an_error(
    shared, ask, request
):
    wait = (("retry-after", "30"),)
    overloaded = error_json(529, "overloaded_error", headers=wait)
    spent = error_json(402, "billing_error", "no money left")
    shared.second.answer(overloaded, error_json(500, "api_error"), spent, overloaded)
    assert ask("last-resort").attempts == "brief:529 open:500 long:402 home:200"
    assert ask("last-resort").attempts == "home:200"
    shared.upstream.answer(error_json(500, "api_error"))
    told = ask("last-resort")
    assert (told.status, told.attempts) == (529, "home:500 brief:529 open:529")
    shared.second.answer(overloaded, message_json("glm"))
    assert ask("last-resort").attempts == "home:500 brief:529 open:200"
    assert ask("last-resort").attempts == "open:200"
    records = shared.router.records(5, session=request.node.name)
    assert [one["status"] for one in records] == ["success", "success", "error", "success", "success"]


def test_an_error_of_the_routers_own_names_every_target_and_why_it_did_not_answer(shared, ask):
    shared.second.answer(error_json(402, "billing_error", "no money left"))
    for attempts in ("spent:402 dead:connect dead:connect", "dead:connect dead:connect"):
        told = ask("nobody")
        assert (told.status, told.attempts) == (502, attempts)
        message = told.error["message"]
        assert message.startswith("dead could not be reached at 127.0.0.1:1: Connection refused; ")
        assert "spent: " in message
        assert "no money left" in message
        assert message.count("dead: connect, Connection refused") == 1
        assert "keyless: NOT_SET_IN_TESTS is not set" in message


# whose trouble it is


SPENT = "You're out of extra usage. Add more at claude.ai/settings/usage and keep going."
DISABLED = "This organization has been disabled."


@pytest.mark.parametrize("said", [SPENT, DISABLED])
def test_a_400_of_the_account_moves_on_to_the_next_key(start_router, upstream, said):
    provider = f'{{url: "{upstream.url}", keys: [{", ".join(KEYS)}]}}'
    router = start_router(upstream.url, rules=f'providers: {{z: {provider}}}\nrules: [{{match: "*", to: z}}]')
    upstream.answer(error_json(400, "invalid_request_error", said), message_json("glm"))
    with Caller(router) as caller:
        for attempts in ("z:400 z:200", "z:200"):
            caller.ask("glm", stream=False)
            assert caller.answer().headers["x-signalbox-attempts"] == attempts
    keys = [one.header("x-api-key") for one in upstream.requests]
    assert (set(keys), keys[1]) == (set(KEYS), keys[2])


def test_a_400_of_the_callers_own_account_moves_on_to_the_next_target(shared, ask):
    shared.upstream.answer(error_json(400, "invalid_request_error", DISABLED))
    assert ask("disabled").attempts == "login:400 zai:200"


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_a_refused_key_of_the_router_is_told_as_403_with_the_providers_name(shared, ask, count, stream):
    shared.second.answer(error_json(401, "authentication_error", "invalid x-api-key"))
    for told in (ask("own", stream=stream), count("own")):
        assert told.status == 403
        assert told.error == {"type": "permission_error", "message": "own: invalid x-api-key"}
        assert told.attempts == "own:401"
        assert int(told.headers["content-length"]) == len(told.body)


def test_a_refused_login_of_the_caller_stays_a_401(shared, ask):
    refused = error_json(401, "authentication_error", "Invalid bearer token")
    shared.upstream.answer(refused)
    told = ask("login")
    assert (told.status, told.body) == (401, refused.body)


# counting tokens


@pytest.mark.parametrize(
    "failure",
    [
        error_json(429, "rate_limit_error", headers=(("retry-after", "50"),)),
        error_json(403, "permission_error"),
        error_json(500, "api_error"),
    ],
    ids=["429", "403", "500"],
)
def test_count_tokens_tells_nothing_about_messages(shared, ask, count, failure):
    def answer(received: Received) -> Answer:
        return failure if "count_tokens" in received.path else message_json("glm")

    shared.second.answer(answer)
    ask("messages")
    for _ in range(7):
        count("messages")
    shown = stands(shared.router, "messages")
    assert (shown["available"], shown["circuit"], shown["key_valid"]) == (True, "closed", True)
    assert ask("messages").attempts == "messages:200"


def test_messages_tell_nothing_about_count_tokens(shared, ask, count):
    def answer(received: Received) -> Answer:
        if "count_tokens" in received.path:
            return json_answer({"input_tokens": 7})
        return error_json(429, "rate_limit_error", headers=(("retry-after", "50"),))

    shared.second.answer(answer)
    assert ask("many").attempts == "many:429 many:429 home:200"
    assert ask("many").attempts == "home:200"
    assert (count("many").attempts, len(shared.upstream.requests)) == ("many:200", 2)


def test_a_window_that_counting_tokens_has_used_up_is_left_to_counting_tokens(shared, ask, count):
    limits = {
        "anthropic-ratelimit-unified-status": "rejected",
        "anthropic-ratelimit-unified-7d-status": "rejected",
        "anthropic-ratelimit-unified-7d-reset": str(int(time.time()) + 3600),
    }
    spent = error_json(429, "rate_limit_error", headers=tuple(limits.items()))
    shared.second.answer(lambda one: spent if "count_tokens" in one.path else message_json("glm"))
    assert count("windows").attempts == "windows:429"
    assert count("windows").attempts == "home:200"
    assert ask("windows").attempts == "windows:200"


# warming up a cache


def test_a_cache_is_warmed_up_where_there_is_one_and_nowhere_else(shared, caller):
    shared.second.answer(error_json(500, "api_error"))
    body = json.dumps({"model": "warm", "max_tokens": 0, "messages": [{"role": "user", "content": "x"}]})
    caller.socket.sendall(caller.head(len(body)) + body.encode())
    told = caller.answer()
    assert (told.status, told.headers["x-signalbox-attempts"]) == (500, "zai:500")
    assert not shared.upstream.requests


# kept connections


def used_again(answer: Answer) -> Callable[[Received], Answer]:
    """A message on every fresh connection, and this on one that has served before."""
    used: set[int] = set()

    def script(received: Received) -> Answer:
        if received.connection in used:
            return answer
        used.add(received.connection)
        return message_json("glm")

    return script


HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"


@pytest.mark.parametrize(
    "broken",
    [
        Answer(framing="raw", chunks=(1.2,), cut="reset"),
        Answer(framing="raw", chunks=(HINTS, 0.05), cut="reset"),
        Answer(framing="raw", chunks=(b"HTTP/1.1 200 OK\r\nContent-", 0.05), cut="close"),
    ],
    ids=["after a while", "after early hints", "in the head"],
)
def test_a_kept_connection_that_breaks_after_some_work_is_a_failed_attempt(shared, caller, broken):
    shared.second.answer(used_again(broken))
    told = []
    for _ in range(2):
        caller.ask("lone-glm", stream=False)
        told.append(caller.answer())
    assert [one.status for one in told] == [200, 502]
    assert told[1].headers["x-signalbox-attempts"] == "zai:connect"
    assert len(shared.second.requests) == 2
    assert shared.router.records(2, session=caller.session)[1]["status"] == "error"


def test_a_kept_connection_that_breaks_at_once_is_asked_anew(shared, caller):
    shared.second.answer(used_again(Answer(framing="raw", cut="reset")))
    for _ in range(2):
        caller.ask("lone-glm", stream=False)
        assert caller.answer().headers["x-signalbox-attempts"] == "zai:200"
    assert len(shared.second.requests) == 3


# headers


def test_an_error_of_the_routers_own_tells_all_that_is_known(shared, ask, count):
    for told in (ask("no-key"), count("no-key")):
        assert told.status == 503
        shown = {name: told.headers[f"x-signalbox-{name}"] for name in ("provider", "model", "rule")}
        assert (shown["provider"], shown["model"]) == ("keyless", "no-key")
        assert shown["rule"].startswith("#")
        assert told.headers["request-id"] == json.loads(told.body)["request_id"]


def test_a_client_that_wants_its_connection_closed_has_it_closed_after_any_answer(shared):
    shared.second.answer(error_json(401, "authentication_error"), message_json("glm"))
    for model, status in (("own", b"403"), ("lone-glm", b"200"), ("no-key", b"503")):
        with Caller(shared.router) as caller:
            caller.ask(model, stream=False, Connection="close")
            said = caller.until_closed()
            assert said.startswith(b"HTTP/1.1 " + status)


# who is not in the rules


def test_what_passes_by_the_rules_says_nothing_of_a_provider_of_the_same_name(start_router, upstream):
    """Where the upstream is Anthropic, that name is `anthropic`."""
    rules = f"""
providers:
  upstream: {{url: "{upstream.url}", key: {KEYS[0]}, budget: {{tokens: 2000, per: day}}}}
  spare: {{url: "{upstream.url}", key: {KEYS[1]}}}
rules:
  - {{match: "mine", to: [upstream, spare]}}
"""
    router = start_router(upstream.url, rules=rules)
    limits = {
        "anthropic-ratelimit-unified-status": "rejected",
        "anthropic-ratelimit-unified-7d-status": "rejected",
        "anthropic-ratelimit-unified-7d-reset": str(int(time.time()) + 3600),
    }
    spent = error_json(429, "rate_limit_error", headers=tuple(limits.items()))
    refused = error_json(401, "authentication_error")
    upstream.answer(message_json("mine"), *[message_json("other")] * 2, spent, refused, message_json("mine"))
    with Caller(router) as caller:
        told = []
        for model in ("mine", "other", "other", "other", "other", "mine"):
            caller.ask(model, stream=False)
            told.append(caller.answer())
    shown = [(one.headers["x-signalbox-provider"], one.headers["x-signalbox-attempts"]) for one in told]
    assert shown == [("upstream", f"upstream:{status}") for status in (200, 200, 200, 429, 401, 200)]
    assert [one["backend"] for one in router.records(6)] == ["upstream"] * 6
    health = stands(router, "upstream")
    assert (health["available"], health["key_valid"], health["quota"]) == (True, True, None)
    assert "mode transition" not in router.log()
