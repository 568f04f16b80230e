"""Routers that share a state folder, and files that others lock (more in `test_proxy_stream_crossing`)."""

import http.client
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from itertools import cycle

import pytest

from tests.support.conversation import Conversation
from tests.support.fake_provider import Upstream
from tests.support.router import Router
from tests.support.strict_providers import (
    LaxProvider,
    StrictAnthropic,
    UnsignedProvider,
)

if sys.platform != "win32":
    import fcntl

LOGIN = "Bearer sk-ant-oat01-fake-login-of-nobody"
PROVIDERS = ("anthropic", "zai", "kimi", "deepseek")


@pytest.fixture
def upstreams() -> Iterator[dict[str, Upstream]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(Upstream()) for name in PROVIDERS}


def rules(upstreams: dict[str, Upstream]) -> str:
    auth = {name: f"key: {name}-key" for name in PROVIDERS} | {"anthropic": "auth: client"}
    lines = [f"  {name}: {{url: '{one.url}', {auth[name]}}}\n" for name, one in upstreams.items()]
    providers = "".join(lines)
    matches = "".join(f"  - {{match: '{name}-*', to: {name}}}\n" for name in PROVIDERS)
    return f"providers:\n{providers}rules:\n{matches}"


def sender(
    router: Router, path: str = "/v1/messages?beta=true"
) -> Callable[[bytes, dict[str, str]], tuple[int, bytes]]:
    def send(body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        with closing(http.client.HTTPConnection("127.0.0.1", router.ports[0], timeout=15)) as connection:
            connection.request("POST", path, body, {"Authorization": LOGIN} | headers)
            answer = connection.getresponse()
            return answer.status, answer.read()

    return send


@pytest.mark.slow
def test_two_routers_that_share_their_state_take_turns_in_one_conversation(start_router, upstreams, tmp_path):
    """What one has just delivered the other knows: foreign thinking is refused, and missing thinking too."""
    upstreams["anthropic"].answer(StrictAnthropic("anthropic"))
    upstreams["zai"].answer(LaxProvider("zai"))
    upstreams["deepseek"].answer(UnsignedProvider("deepseek"))
    routers = [
        start_router(upstreams["anthropic"].url, rules=rules(upstreams), state=tmp_path / "state")
        for _ in range(2)
    ]
    senders = cycle(map(sender, routers))
    conversation = Conversation(lambda body, headers: next(senders)(body, headers))
    for turn in range(30):
        conversation.turn(f"{('deepseek', 'zai', 'anthropic', 'deepseek')[turn % 4]}-model")
    for router in routers:
        assert {record["attempts"] for record in router.records(15)} == {
            "deepseek:200",
            "zai:200",
            "anthropic:200",
        }


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks")
@pytest.mark.slow
def test_requests_do_not_wait_for_files_that_others_lock(start_router, upstreams, tmp_path):
    """Of learned facts, the ledger and the request log."""
    upstreams["deepseek"].answer(UnsignedProvider("deepseek"))
    state = tmp_path / "state"
    router = start_router(upstreams["anthropic"].url, rules=rules(upstreams), state=state)
    conversation = Conversation(sender(router))

    def median() -> float:
        """Seconds of a turn whose history and whose answer hold thinking."""
        took = []
        for _ in range(15):
            began = time.monotonic()
            conversation.turn("deepseek-model")
            took.append(time.monotonic() - began)
        return sorted(took)[7]

    free = median()
    router.records(15)
    with ExitStack() as held:
        for file in ("learned.sqlite", "ledger.sqlite"):
            other = held.enter_context(closing(sqlite3.connect(state / file, isolation_level=None)))
            other.execute("BEGIN EXCLUSIVE")
        lock = held.enter_context((state / ".requests.jsonl.lock").open("w"))
        fcntl.flock(lock, fcntl.LOCK_EX)
        locked = median()
    assert locked < free * 1.5 + 0.04  # one wait for one of them would be 0.05
    assert len(router.records(30)) == 30
