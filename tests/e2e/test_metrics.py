"""/metrics of a running router."""

import threading
from dataclasses import replace

import pytest

from tests.support.answers import USAGE, error_json, message_json
from tests.support.fake_provider import Upstream
from tests.support.metrics import Samples, samples
from tests.support.raw_client import Caller
from tests.support.router import Router
from tests.support.router_process import OPENER, wait_until

TOTAL = sum(USAGE.values())
QUOTA = [
    ("anthropic-ratelimit-unified-5h-utilization", "0.42"),
    ("anthropic-ratelimit-unified-5h-status", "allowed"),
]


def rules(home: Upstream, up: Upstream) -> str:
    return f"""
providers:
  anthropic: {{url: "{home.url}", auth: client}}
  up:
    url: "{up.url}"
    key: up-key-for-tests-0001
    circuit: {{open_after: 1}}
    budget: {{tokens: {4 * TOTAL}, per: month}}
rules:
  - {{name: both, match: "up*", to: [up/glm-4.7, anthropic/claude-haiku-4-5]}}
"""


def seen(router: Router) -> Samples:
    with OPENER.open(f"{router.url}/metrics", timeout=5) as answer:
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        return samples(answer.read().decode())


def ask(router: Router) -> None:
    with Caller(router) as caller:
        caller.ask("up-x", stream=False)
        assert caller.answer().status == 200


@pytest.fixture
def started_router(start_router, upstream, second) -> Router:
    router: Router = start_router(upstream.url, rules=rules(upstream, second))
    return router


@pytest.mark.slow
def test_requests_attempts_and_tokens_are_counted_and_what_holds_is_shown(started_router, upstream, second):
    second.answer(message_json(), error_json(500, "api_error"))
    upstream.answer(replace(message_json(), headers=(*message_json().headers, *QUOTA)))
    for _ in range(2):
        ask(started_router)
    wait_until(
        lambda: ("signalbox_attempts_total", "500", "up") in seen(started_router), 5, lambda: "the counts"
    )
    shown = seen(started_router)
    assert shown["signalbox_requests_total", "glm-4.7", "up", "both", "success"] == 1
    assert shown["signalbox_requests_total", "claude-haiku-4-5", "anthropic", "both", "success"] == 1
    assert shown["signalbox_tokens_total", "glm-4.7", "up", "cache_read"] == USAGE["cache_read_input_tokens"]
    assert shown["signalbox_circuit_open", "up"] == 1
    assert shown["signalbox_circuit_open", "anthropic"] == 0
    assert shown["signalbox_quota_used_ratio", "default", "anthropic", "5h"] == pytest.approx(0.42)
    assert shown["signalbox_budget_used_ratio", "up"] == pytest.approx(0.25)
    assert shown["signalbox_requests_in_flight",] == 0
    assert shown["signalbox_rules_loaded_timestamp_seconds",] > 1.7e9
    wait_until(lambda: seen(started_router)["signalbox_ledger_waiting",] == 0, 5, lambda: "the ledger")


def test_requests_in_flight_are_those_for_messages_that_have_no_end_yet(started_router, second):
    gate = threading.Event()
    second.answer(replace(message_json(), wait=gate))
    with Caller(started_router) as caller:
        caller.ask("up-x", stream=False)
        second.wait_for(1)
        assert seen(started_router)["signalbox_requests_in_flight",] == 1
        gate.set()
        caller.answer()
    wait_until(
        lambda: seen(started_router)["signalbox_requests_in_flight",] == 0, 5, lambda: "none in flight"
    )
