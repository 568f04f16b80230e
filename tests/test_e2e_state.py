"""Nothing that users, files or other processes do beside a request holds the others up."""

import json
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.running import OPENER, Router
from tests.upstream import Upstream

KEY = "key-for-tests-0000000001"
PASTED = {r"\s+$": "x" + " " * 90_000 + "x", "a.*b.*c.*d": "abc" * 33_000}


def rules(home: Upstream, up: Upstream) -> str:
    return f"""
providers:
  anthropic: {{url: "{home.url}", auth: client}}
  other: {{url: "{up.url}", key: {KEY}}}
rules:
  - {{match: {{model: "slow-*", prompt: ['\\s+$', a.*b.*c.*d]}}, to: other}}
  - {{match: "*", to: anthropic}}
"""


def ask(router: Router, model: str, prompt: str = "Hi", **headers: str) -> int:
    """The status of the answer to a request that is not streamed."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": prompt}]}).encode()
    asked = urllib.request.Request(
        f"{router.url}/v1/messages", body, {"authorization": "Bearer x", **headers}
    )
    try:
        with OPENER.open(asked, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.parametrize("pattern", PASTED)
def test_a_slow_expression_holds_nobody_up(router: Router, pattern: str):
    with ThreadPoolExecutor(4) as pool:
        slow = [pool.submit(ask, router, "slow-1", PASTED[pattern]) for _ in range(3)]
        waits = []
        while not all(one.done() for one in slow):
            began = time.monotonic()
            assert ask(router, "quick") == 200
            waits.append(time.monotonic() - began)
        assert [one.result() for one in slow] == [200] * 3
    assert sorted(waits)[len(waits) // 2] < 0.5
    router.wait_log("regular expression .* takes longer")


def test_an_expression_decides_as_before(router: Router, up: Upstream):
    assert ask(router, "slow-2", "a b c d") == 200
    assert up.wait_for(1)
