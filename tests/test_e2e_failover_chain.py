"""Keys, retries, waits, circuits and rests: who is asked next, and who is spared."""

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from contextlib import closing
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

from tests.answers import Answer, error_json, message_json
from tests.conftest import Shared
from tests.running import Router, wait_until
from tests.upstream import Received, Upstream

ROUTER = Router

KEYS = ["zai-key-for-tests-0001", "zai-key-for-tests-0002"]


def rules(home: Upstream, zai: Upstream) -> str:
    """A provider for each test, so that none meets what another one left resting."""
    zais = [
        "rotate-429", "rotate-401", "stay", "spent", "retried", "waited", "impatient", "named", "only",
        "rejecting", "breaker", "window", "herd", "single", "unset", "valid",
    ]  # fmt: skip
    circuit = "circuit: {degraded_after: 2, open_after: 3, cooldown: 600ms}"
    lines = [
        f'  {name}: {{url: "{zai.url}", keys: [{", ".join(KEYS)}], {circuit}}}'
        if name.startswith(("rotate", "stay", "spent", "valid"))
        else f'  {name}: {{url: "{zai.url}", key: {KEYS[0]}, {circuit}}}'
        for name in zais
    ]
    special = {
        "retried": "to: [retried, home], failover: {retries: 2}",
        "waited": "to: [waited, home], failover: {wait: 2s}",
        "impatient": "to: [impatient, home], failover: {wait: 500ms}",
        "named": 'to: [named, home], failover: {on: ["503"]}',
        "only": "to: [only]",
        "unset": "to: [unset, keyless]",
        "rejecting": "to: [rejecting, {reject: 418, message: the kettle is on}]",
    }
    rows = [
        f"  - {{name: {name}, match: {name}, {special.get(name, f'to: [{name}, home]')}}}" for name in zais
    ]
    home_line = f'  home: {{url: "{home.url}", key: home-key-for-tests-01, circuit: {{open_after: 1000}}}}'
    keyless = f'  keyless: {{url: "{home.url}", key: "${{NOT_SET_IN_TESTS}}"}}'
    rows.append("  - {name: keyless, match: keyless, to: keyless}")
    return "\n".join(["providers:", home_line, keyless, *lines, "rules:", *rows])


class Told(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: Any

    @property
    def attempts(self) -> str | None:
        return self.headers["x-signalbox-attempts"]


type Ask = Callable[..., Told]


@pytest.fixture
def ask(shared: Shared) -> Ask:
    def ask(model: str, session: str = "s-1", marker: str = "x") -> Told:
        body = json.dumps({"model": model, "messages": [{"role": "user", "content": marker}]})
        with closing(http.client.HTTPConnection("127.0.0.1", shared.router.ports[0], timeout=20)) as line:
            line.request("POST", "/v1/messages", body, {"X-Claude-Code-Session-Id": session})
            answer = line.getresponse()
            return Told(answer.status, answer.headers, json.loads(answer.read()))

    return ask


def refusing(status: int, kind: str, **headers: str) -> Answer:
    return error_json(status, kind, headers=tuple((k.replace("_", "-"), v) for k, v in headers.items()))


def keys_seen(provider: Upstream) -> list[str | None]:
    return [one.header("x-api-key") for one in provider.requests]


# keys


@pytest.mark.parametrize(
    ("provider", "failure"),
    [
        ("rotate-429", refusing(429, "rate_limit_error", retry_after="30")),
        ("rotate-401", refusing(401, "authentication_error")),
    ],
)
def test_a_key_that_fails_gives_its_place_to_the_other_at_once_and_the_session_stays_there(
    shared, ask, provider, failure
):
    shared.second.answer(failure, message_json("glm"))
    told = ask(provider)
    assert told.status == 200
    assert told.attempts == f"{provider}:{failure.status} {provider}:200"
    first, other = keys_seen(shared.second)
    assert {first, other} == set(KEYS)
    assert ask(provider).attempts == f"{provider}:200"
    assert keys_seen(shared.second) == [first, other, other]
    assert not shared.upstream.requests


def test_a_session_keeps_its_key_and_many_sessions_use_all(shared, ask):
    for session in [f"s-{number}" for number in range(8)] * 2:
        ask("stay", session)
    keys = keys_seen(shared.second)
    assert keys[:8] == keys[8:]
    assert set(keys) == set(KEYS)


def test_when_every_key_is_spent_the_next_target_answers(shared, ask):
    shared.second.answer(refusing(429, "rate_limit_error", retry_after="30"))
    assert ask("spent").attempts == "spent:429 spent:429 home:200"
    assert ask("spent").attempts == "home:200"


def test_a_refused_key_is_shown_though_another_one_answered(shared, ask):
    shared.second.answer(refusing(401, "authentication_error"))
    assert ask("valid").attempts == "valid:401 valid:401 home:200"
    shown = shared.router.health()["providers"]["valid"]
    assert shown["key_valid"] is False
    assert shown["available"] is False
    assert "authentication_error" in shown["reason"]


# retries, waits, and the rule's own failover


def test_retries_ask_the_same_target_first(shared, ask):
    shared.second.answer(refusing(500, "api_error"))
    assert ask("retried").attempts == "retried:500 retried:500 retried:500 home:200"


def test_a_short_retry_after_is_waited_out_at_the_same_target(shared, ask):
    shared.second.answer(refusing(429, "rate_limit_error", retry_after="1"), message_json("glm"))
    assert ask("waited").attempts == "waited:429 waited:200"
    first, again = shared.second.requests
    assert 1.0 <= again.time - first.time < 5
    assert not shared.upstream.requests


def test_a_longer_one_is_not(shared, ask):
    shared.second.answer(refusing(429, "rate_limit_error", retry_after="1"))
    assert ask("impatient").attempts == "impatient:429 home:200"


def test_a_client_that_leaves_during_a_wait_ends_it(shared, ask):
    shared.second.answer(refusing(429, "rate_limit_error", retry_after="1"))
    body = json.dumps({"model": "waited"})
    with closing(http.client.HTTPConnection("127.0.0.1", shared.router.ports[0], timeout=20)) as line:
        line.request("POST", "/v1/messages", body)
        shared.router.wait_log(r"↻ waited 429 → waited")
    record = shared.router.records(1)[0]
    assert record["status"] == "cancelled"
    assert record["latency_ms"] < 900
    assert len(shared.second.requests) == 1


def test_a_rule_says_by_itself_what_moves_on(shared, ask):
    shared.second.answer(refusing(500, "api_error"), refusing(503, "api_error"))
    assert ask("named").attempts == "named:500"
    assert ask("named").attempts == "named:503 home:200"


# rests


def test_when_all_rest_the_last_is_asked_all_the_same(shared, ask):
    failure = refusing(429, "rate_limit_error", retry_after="20")
    shared.second.answer(failure)
    for _ in range(2):
        told = ask("only")
        assert (told.status, told.attempts, told.headers["retry-after"]) == (429, "only:429", "20")
    assert len(shared.second.requests) == 2
    assert shared.router.health()["status"] == "unhealthy"


def test_who_is_told_that_nobody_is_available_may_try_again_unless_only_keys_are_missing(shared, ask):
    shared.second.answer(refusing(429, "rate_limit_error", retry_after="20"))
    assert ask("unset").attempts == "unset:429"
    for model, retry in (("unset", None), ("keyless", "false")):
        told = ask(model)
        assert (told.status, told.headers["x-should-retry"]) == (503, retry)
        assert "NOT_SET_IN_TESTS is not set" in told.body["error"]["message"]


def test_a_list_that_ends_in_a_reject_is_answered_here(shared, ask):
    shared.second.answer(refusing(429, "rate_limit_error", retry_after="20"))
    told = ask("rejecting")
    assert (told.status, told.attempts) == (418, "rejecting:429")
    assert told.body["error"]["message"] == "the kettle is on"
    assert told.headers["x-signalbox-rule"] == "rejecting"
    again = ask("rejecting")
    assert (again.status, again.attempts, again.body["error"]) == (418, None, told.body["error"])
    assert len(shared.second.requests) == 1
    assert [record["status"] for record in shared.router.records(2)] == ["error", "error"]
    shared.router.wait_log(r"↻ rejecting 429 → reject: ")


def test_spent_quota_rests_until_its_reset_and_says_which(shared, ask):
    reset = str(int(time.time()) + 3600)
    limits = {
        "anthropic-ratelimit-unified-status": "rejected",
        "anthropic-ratelimit-unified-7d-status": "rejected",
        "anthropic-ratelimit-unified-7d-reset": reset,
        "anthropic-ratelimit-unified-5h-status": "allowed",
        "anthropic-ratelimit-unified-5h-reset": str(int(time.time()) + 60),
    }
    shared.second.answer(error_json(429, "rate_limit_error", headers=tuple(limits.items())))
    assert ask("window").attempts == "window:429 home:200"
    assert ask("window").attempts == "home:200"
    shared.router.wait_log(r"mode transition: window -> home \(5h=0%, 7d=0%, overage=0%\)")
    shared.router.wait_log(r"dispatch: home reason=quota:7d model=window")
    assert [record["reason"] for record in shared.router.records(2)] == ["rule:window", "quota:7d"]


def test_who_rests_is_passed_over_and_the_log_says_so(shared, ask):
    shared.second.answer(error_json(529, "overloaded_error"))
    ask("single")
    assert ask("single").attempts == "home:200"
    shared.router.wait_log(r"dispatch: home reason=cooldown model=single")


# circuits


def test_a_circuit_opens_lets_one_trial_through_and_closes(shared, ask):
    router, broken = shared.router, shared.second

    def seen() -> str:
        return router.health()["providers"]["breaker"]["circuit"]

    broken.answer(refusing(500, "api_error"))
    states = []
    for _ in range(3):
        ask("breaker")
        states.append(seen())
    assert states == ["closed", "degraded", "open"]
    assert router.health()["status"] in ("degraded", "unhealthy")
    assert router.health()["providers"]["breaker"]["reason"].startswith("circuit: open for another")
    assert ask("breaker").attempts == "home:200"
    router.wait_log(r"dispatch: home reason=circuit model=breaker")
    router.wait_log(r"circuit of breaker: degraded → open")

    wait_until(lambda: seen() == "half-open", 5, lambda: "the cooldown")
    answering = threading.Event()
    broken.answer(Answer(wait=answering, headers=message_json("glm").headers, chunks=message_json().chunks))
    with ThreadPoolExecutor(4) as pool:
        trial = pool.submit(ask, "breaker")
        broken.wait_for(4)
        others = [pool.submit(ask, "breaker") for _ in range(3)]
        assert {other.result().attempts for other in others} == {"home:200"}
        answering.set()
        assert trial.result().attempts == "breaker:200"
    assert seen() == "closed"
    assert len(broken.requests) == 4


# herds


def echo(received: Received) -> Answer:
    return message_json(received.json["model"], received.json["messages"][0]["content"])


def test_a_herd_learns_from_its_first_failure(shared, ask, gate):
    """Those who were asking already fail, each once; of the rest nobody does."""
    exhausted, first = refusing(429, "rate_limit_error", retry_after="30"), threading.Event()
    shared.second.answer(replace(exhausted, wait=first), replace(exhausted, wait=gate))
    shared.upstream.answer(echo)
    markers = [f"marker-{number}" for number in range(50)]
    with ThreadPoolExecutor(50) as pool:
        early = [pool.submit(ask, "herd", marker, marker) for marker in markers[:10]]
        shared.second.wait_for(10)
        first.set()
        next(as_completed(early)).result()
        late = [pool.submit(ask, "herd", marker, marker) for marker in markers[10:]]
        wait(late)
        gate.set()
        told = [one.result() for one in early + late]
    assert [one.body["content"][0]["text"] for one in told] == markers
    asked = Counter(one.json["messages"][0]["content"] for one in shared.upstream.requests)
    assert asked == Counter(markers)
    assert [one.attempts for one in told] == ["herd:429 home:200"] * 10 + ["home:200"] * 40
    assert len(shared.second.requests) == 10
