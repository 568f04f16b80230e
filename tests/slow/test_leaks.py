"""After many requests nothing of them is left: connections, streams, timers, bodies."""

import json
import sys
from pathlib import Path

import pytest

from tests.support.answers import (
    Answer,
    error_json,
    sse,
)
from tests.support.fake_provider import Upstream
from tests.support.raw_client import Caller
from tests.support.router_process import Router, with_scripts
from tests.support.stream_fixtures import BROKEN, LATE, NOISE

pytestmark = pytest.mark.slow
ROUTER = Router


def rules(home: Upstream, zai: Upstream, no_tls: int) -> str:
    key = "key: zai-key-for-tests-0001, circuit: {open_after: 100000}"
    return f"""
providers:
  anthropic: {{url: "{home.url}", auth: client}}
  zai: {{url: "{zai.url}", {key}, timeout: {{first_byte: 300ms}}}}
  no-tls: {{url: "https://127.0.0.1:{no_tls}", {key}}}
rules:
  - {{match: "zai*", to: [zai, anthropic]}}
  - {{match: "no-tls*", to: [no-tls, anthropic]}}
"""


OPTIONS = (*with_scripts("leak_counter.py"), "--set", "ssl_insecure=true")


def census(caller: Caller) -> dict[str, int]:
    caller.ask("census", X_Census="1")
    found: dict[str, int] = json.loads(caller.answer().body)
    return found


FAILURES = [
    error_json(500, "api_error"),
    Answer(502, (("Connection", "close"),), (b"<html>",), cut="close"),
    Answer(framing="raw", cut="reset"),
    Answer(framing="raw", cut="close"),
    sse(BROKEN, *NOISE),
    sse(LATE[0], cut="reset"),
]


def test_three_hundred_failovers_on_one_connection_leave_nothing_behind(shared, caller):
    def failovers(count: int) -> None:
        for number in range(count):
            shared.second.answer(FAILURES[number % len(FAILURES)])
            caller.ask("no-tls" if number % 10 == 9 else "zai", pad=50_000)
            assert caller.answer().headers["x-signalbox-attempts"].endswith("anthropic:200")

    failovers(20)
    before = census(caller)
    failovers(300)
    after = census(caller)
    grown = {name: (before[name], after[name]) for name in before if after[name] > before[name] + 2}
    grown.pop("bytes", None)
    assert not grown
    assert after["connections"] <= 4
    assert after["bytes"] < before["bytes"] + 200_000


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux for what a process holds")
def test_large_requests_that_are_over_are_not_held_until_their_time_limits_come(start_router, upstream):
    rules = f'providers: {{zai: {{url: "{upstream.url}", key: k}}}}\nrules: [{{match: "*", to: zai}}]'
    router = start_router(upstream.url, rules=rules)
    status = Path(f"/proc/{router.process.pid}/status")
    held = []
    with Caller(router) as caller:
        for number in range(80):
            caller.ask("large", pad=1_000_000)
            assert caller.answer().status == 200
            upstream.requests.clear()
            if number % 60 == 19:  # after the warm-up, and at the end
                held.append(int(status.read_text().partition("VmRSS:")[2].split()[0]))
    assert held[1] - held[0] < 40_000, f"{held} KiB; 60 requests of 1 MB came between"
