"""Nothing that users, files or other processes do beside a request holds the others up."""

import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.answers import Answer, error_json, message_json
from tests.support.fake_provider import Received, Upstream
from tests.support.router import Router
from tests.support.status import ask

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks and pipes")
KEY = "key-for-tests-0000000001"
PASTED = ("x" + " " * 90_000 + "x", "abc" * 33_000)
"""Texts on which the expressions of the rules take long."""

COUNTER = (
    "import pathlib, time; time.sleep(0.3); p = pathlib.Path('runs'); "
    "n = p.stat().st_size if p.exists() else 0; p.write_text('x' * (n + 1)); print('key-%08d' % (n + 1))"
)
"""Prints another key each time it is run; slowly, so that requests in parallel meet one run."""


def rules(home: Upstream, up: Upstream) -> str:
    return f"""
providers:
  anthropic: {{url: "{home.url}", auth: client}}
  other: {{url: "{up.url}", key: {KEY}}}
  printed: {{url: "{up.url}", key: {{command: ["{sys.executable}", -c, "{COUNTER}"]}}}}
rules:
  - {{match: "printed-*", to: printed}}
  - {{match: {{model: "slow-*", prompt: ['\\s+$', a.*b.*c.*d]}}, to: other}}
  - {{match: "*", to: anthropic}}
"""


@pytest.mark.slow
def test_a_slow_expression_holds_nobody_up(router: Router):
    with ThreadPoolExecutor(4) as pool:
        slow = [pool.submit(ask, router, "slow-1", pasted) for pasted in PASTED for _ in range(2)]
        waits = []
        while not all(one.done() for one in slow):
            began = time.monotonic()
            assert ask(router, "quick") == 200
            waits.append(time.monotonic() - began)
        assert [one.result() for one in slow] == [200] * 4
    assert sorted(waits)[len(waits) // 2] < 2, "seconds, on a busy machine too"
    router.wait_log("regular expression .* takes longer")


def refuse_all_but(key: int):
    def answer(request: Received) -> Answer:
        if request.header("x-api-key") == f"key-{key:08}":
            return message_json("printed-1")
        return error_json(401, "authentication_error", "invalid x-api-key")

    return answer


@pytest.mark.slow
def test_a_refused_key_is_printed_again_and_the_same_target_asked_once_more(router: Router, up: Upstream):
    first = keys_of_runs(router)
    up.answer(refuse_all_but(first + 1))
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: ask(router, "printed-1", session="keys"), range(4))) == [200] * 4
    assert keys_of_runs(router) == first + 1, "requests in parallel share a run"
    assert {record["attempts"] for record in router.records(4, session="keys")} <= {
        "printed:401 printed:200",
        "printed:200",
    }
    up.answer(refuse_all_but(0))
    assert ask(router, "printed-1", session="keys") in (401, 403)
    assert keys_of_runs(router) == first + 2
    assert router.records(5, session="keys")[4]["attempts"] == "printed:401 printed:401"


def keys_of_runs(router: Router) -> int:
    return (router.folder / "runs").stat().st_size
