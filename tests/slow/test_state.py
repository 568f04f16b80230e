"""The state folder: a lock that another process holds, and a router that is killed."""

import http.client
import sqlite3
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress

import pytest

from tests.support.fake_provider import Upstream
from tests.support.router_process import Router, wait_until
from tests.support.status import ask

ROUTER = Router

pytestmark = pytest.mark.slow

if sys.platform != "win32":
    import fcntl

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks")


def rules(home: Upstream, up: Upstream) -> str:
    return f"""
providers:
  anthropic: {{url: "{home.url}", auth: client}}
rules:
  - {{match: "*", to: anthropic}}
"""


@posix
def test_a_lock_that_another_process_holds_is_waited_for_by_nobody(router: Router):
    assert ask(router, "m", session="lock") == 200
    before = len(router.records(1, session="lock"))
    with (router.state / ".requests.jsonl.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        began = time.monotonic()
        assert [ask(router, "m", session="lock") for _ in range(5)] == [200] * 5
        assert time.monotonic() - began < 5
        router.wait_log("requests are not recorded: .*another process holds the lock of the log")
        assert len(router.records(session="lock")) == before
    assert len(router.records(before + 5, session="lock")) == before + 5
    router.wait_log("requests are recorded again")


def test_ledger_and_log_agree_after_a_kill_under_load(start_router, upstream: Upstream, tmp_path):
    settings = {"rules": f"providers: {{a: {{url: '{upstream.url}'}}}}\nrules: [{{match: '*', to: a}}]\n"}
    killed: Router = start_router(upstream.url, state=tmp_path / "state", **settings)
    finished: dict[str, float] = {}

    def load(name: str) -> None:
        with suppress(OSError, http.client.HTTPException):
            for number in range(5000):
                assert ask(killed, f"{name}-{number}") == 200
                finished[f"{name}-{number}"] = time.monotonic()

    with ThreadPoolExecutor(4) as pool:
        for name in "abcd":
            pool.submit(load, name)
        wait_until(lambda: len(finished) > 60, 20, lambda: "60 answers")
        began = time.monotonic()
        wait_until(lambda: time.monotonic() > began + 1.5, 5, lambda: "answers of more than a second ago")
        killed.process.kill()
        killed_at = time.monotonic()
    killed.process.wait(5)
    router: Router = start_router(upstream.url, state=tmp_path / "state", **settings)

    def logged() -> list[str]:
        return sorted(record["model"] for record in router.records())

    wait_until(
        lambda: rows(router) == logged(), 10, lambda: f"{len(rows(router))} rows, {len(logged())} lines"
    )
    assert len(set(logged())) == len(logged()), "none is doubled"
    missing = set(finished) - set(logged())
    assert all(finished[model] > killed_at - 1 for model in missing), "at most those of the last second"
    router.stop()
    assert not list((tmp_path / "state").glob("spool-*"))


def rows(router: Router) -> list[str]:
    """The models in the ledger; none while the router that was started has yet to make its tables."""
    with closing(sqlite3.connect(router.state / "ledger.sqlite")) as ledger:
        if not ledger.execute("SELECT 1 FROM sqlite_master WHERE name = 'requests'").fetchone():
            return []
        return [model for (model,) in ledger.execute("SELECT model FROM requests ORDER BY model")]
