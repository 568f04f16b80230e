"""/signalbox/sessions/ID of a running router, and the status line that asks for it."""

import json
import os
import subprocess
import sys
import urllib.error
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.answers import USAGE, message_json
from tests.support.fake_provider import Upstream
from tests.support.raw_client import Caller
from tests.support.router import Router
from tests.support.router_process import OPENER, wait_until

QUOTA = [
    ("anthropic-ratelimit-unified-5h-utilization", "0.424"),
    ("anthropic-ratelimit-unified-5h-status", "allowed"),
]


def rules(home: Upstream, up: Upstream) -> str:
    prices = "{input: 1, output: 10, cache_read: 0.1, cache_write: 1}"
    return f"""
providers:
  anthropic: {{url: "{home.url}", auth: client}}
  zai: {{url: "{up.url}", key: zai-key-for-tests-0001, prices: {{"*": {prices}}}}}
rules:
  - {{name: coding, match: "*sonnet*", to: zai/glm-4.7}}
  - {{match: "*opus*", to: anthropic}}
"""


def ask(router: Router, model: str, session: str) -> None:
    with Caller(router, session) as caller:
        caller.ask(model, stream=False)
        assert caller.answer().status == 200


def summary(router: Router, session: str) -> dict[str, Any]:
    with OPENER.open(f"{router.url}/signalbox/sessions/{quote(session, safe='')}", timeout=5) as answer:
        assert answer.headers["content-type"] == "application/json"
        found: dict[str, Any] = json.load(answer)
        return found


def wait_for(router: Router, session: str, requests: int) -> dict[str, Any]:
    def is_there() -> bool:
        try:
            return summary(router, session)["requests"] == requests
        except urllib.error.HTTPError as error:
            error.close()
            return False

    wait_until(is_there, 5, lambda: f"{requests} requests of {session}")
    return summary(router, session)


@pytest.mark.slow
def test_a_session_is_summed_up_with_the_windows_of_the_plan(router, home, up):
    home.answer(replace(message_json(), headers=(*message_json().headers, *QUOTA)))
    ask(router, "claude-opus-4-5", "s 1/é?")
    for _ in range(2):
        ask(router, "claude-sonnet-4-5", "s 1/é?")
    ask(router, "claude-sonnet-4-5", "another")
    found = wait_for(router, "s 1/é?", 3)
    paid, sonnet = (120 * 1 + 17 * 10 + 500 * 0.1 + 30 * 1), (120 * 3 + 17 * 15 + 500 * 0.3 + 30 * 3.75)
    opus = 120 * 5 + 17 * 25 + 500 * 0.5 + 30 * 6.25
    assert found == {
        "session": "s 1/é?",
        "requests": 3,
        "provider": "zai",
        "model": "glm-4.7",
        "rule": "coding",
        "account": None,
        **{name: 3 * tokens for name, tokens in USAGE.items()},
        "cost": pytest.approx((opus + 2 * paid) / 1e6, abs=3e-6),
        "list_cost": pytest.approx((opus + 2 * sonnet) / 1e6, abs=3e-6),
        "saved": pytest.approx(2 * (sonnet - paid) / 1e6, abs=3e-6),
        "cache_hit": 77,
        "quota": {"5h": 42, "7d": 0, "overage": 0},
    }


def test_an_unknown_session_is_not_found(router):
    with pytest.raises(urllib.error.HTTPError) as unknown:
        summary(router, "nobody")
    with unknown.value as answer:
        assert (answer.code, json.load(answer)) == (
            404,
            {"error": "No request of this session is on record."},
        )


@pytest.mark.slow
def test_the_status_line_shows_it(router, home):
    home.answer(replace(message_json(), headers=(*message_json().headers, *QUOTA)))
    ask(router, "claude-opus-4-5", "shown")
    ask(router, "claude-sonnet-4-5", "shown")
    found = wait_for(router, "shown", 2)
    environment = {**os.environ, "ANTHROPIC_BASE_URL": router.url}
    expected = f"zai/glm-4.7 · 5h 42% 7d 0% · ${found['cost']:.2f} · cache {found['cache_hit']}%\n"

    def printed() -> str:
        done = subprocess.run(
            [sys.executable, "-m", "signalbox.cli", "statusline"],
            env=environment,
            input=json.dumps({"session_id": "shown", "model": {"display_name": "Sonnet"}}),
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        return done.stdout

    # It waits for the router for less than 300 ms, which may be too short on a busy machine.
    wait_until(lambda: printed() == expected, 30, printed)
