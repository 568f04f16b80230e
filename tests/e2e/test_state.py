"""Nothing that users, files or other processes do beside a request holds the others up."""

import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.answers import Answer, error_json, message_json
from tests.support.fake_provider import Received, Upstream
from tests.support.router import Router
from tests.support.router_process import OPENER
from tests.support.status import ask

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks and pipes")
KEY = "key-for-tests-0000000001"
PASTED = {r"\s+$": "x" + " " * 90_000 + "x", "a.*b.*c.*d": "abc" * 33_000}

COUNTER = (
    "import pathlib, time; time.sleep(0.3); p = pathlib.Path('runs'); "
    "n = p.stat().st_size if p.exists() else 0; p.write_text('x' * (n + 1)); print('key-%08d' % (n + 1))"
)
"""Prints another key each time it is run."""


def rules(home: Upstream, up: Upstream) -> str:
    return f"""
providers:
  anthropic: {{url: "{home.url}", auth: client}}
  other: {{url: "{up.url}", key: {KEY}}}
  closed: {{url: "http://127.0.0.1:9"}}
  printed: {{url: "{up.url}", key: {{command: ["{sys.executable}", -c, "{COUNTER}"]}}}}
rules:
  - {{match: "closed-*", to: closed}}
  - {{match: "printed-*", to: printed}}
  - {{match: {{model: "slow-*", prompt: ['\\s+$', a.*b.*c.*d]}}, to: other}}
  - {{match: "*", to: anthropic}}
"""


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
    assert sorted(waits)[len(waits) // 2] < 2, "seconds, on a busy machine too"
    router.wait_log("regular expression .* takes longer")


def test_an_expression_decides_as_before(router: Router, up: Upstream):
    assert ask(router, "slow-2", "a b c d") == 200
    assert up.wait_for(1)


def refuse_all_but(key: int):
    def answer(request: Received) -> Answer:
        if request.header("x-api-key") == f"key-{key:08}":
            return message_json("printed-1")
        return error_json(401, "authentication_error", "invalid x-api-key")

    return answer


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


def test_an_error_says_why_on_the_console(router: Router, up: Upstream):
    message = f"messages: the key {KEY} is not what is missing here, the messages are, all of them"
    up.answer(error_json(400, "invalid_request_error", message))
    assert ask(router, "slow-3", "a b c d") == 400
    router.wait_log(
        r"\[slow-3\|other\] 400 invalid_request_error: messages: the key \*\*\* is not what is missing"
        r" here, the messa… \d+ms"
    )
    assert KEY not in router.log()


def test_a_provider_that_cannot_be_reached_is_named_with_the_reason(router: Router):
    assert ask(router, "closed-1") == 502
    router.wait_log(r"\[closed-1\|closed\] 502 connection refused \(closed at 127\.0\.0\.1:9\) \d+ms")


def test_the_names_in_a_reason_keep_their_capitals(router: Router, up: Upstream):
    up.answer(Answer(framing="raw", chunks=(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{",), cut="close"))
    ask(router, "slow-3", "a b c d")
    router.wait_log(r"\[slow-3\|other\] 502 HTTP/1 protocol error: .* \(other at 127\.0\.0\.1:\d+\) \d+ms")


def test_what_is_refused_or_only_passed_on_leaves_a_line(start_router, upstream: Upstream):
    secret = "client-secret-for-tests"
    router: Router = start_router(
        upstream.url, "http://127.0.0.1:9", rules=f"clients: {{laptop: {secret}}}\nlimits: {{body: 1KB}}\n"
    )
    assert ask(router, "m", **{"x-api-key": "wrong-secret-for-tests"}) == 401
    router.wait_log(r"\[-\|-\] 401 authentication_error from 127\.0\.0\.1 POST /v1/messages \d+ms")
    mine = {"x-signalbox-client": secret}
    assert ask(router, "m", **mine) == 200
    router.wait_log(r"\[-\|upstream\] 200 POST /v1/messages \d+ms")
    asked = urllib.request.Request(f"{router.urls[1]}/v1/elsewhere", headers=mine)
    with pytest.raises(urllib.error.HTTPError, match="502"):
        OPENER.open(asked, timeout=10)
    router.wait_log(
        r"\[-\|upstream\] 502 connection refused \(upstream at 127\.0\.0\.1:9\) GET /v1/elsewhere \d+ms"
    )
    assert [(one["status"], one["backend"], one["client"]) for one in router.records(1)] == [
        ("success", "upstream", "laptop")
    ]
    router.rules(
        f"limits: {{body: 1KB}}\nclients: {{laptop: {secret}}}\nproviders: {{a: {{url: '{upstream.url}'}}}}\n"
        "rules: [{match: '*', to: a}]\n"
    )
    router.wait_log("rules loaded: 1 provider, 1 rule")
    assert ask(router, "m", "x" * 2000, **mine) == 413
    router.wait_log(r"\[-\|-\] 413 request_too_large: The request is larger .* POST /v1/messages \d+ms")
    assert router.records(2)[1]["status"] == "error"
    assert "secret-for-tests" not in router.log()
