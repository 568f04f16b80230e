"""A provider can keep its cache: what goes through the router begins as the client's requests did."""

import http.client
import sqlite3
from collections import Counter, defaultdict
from contextlib import closing

import pytest

from tests.bench.caches import LOGIN, compare, run, units
from tests.conftest import Shared
from tests.support.answers import Answer, error_json, message_sse
from tests.support.conversation import SESSION, Conversation
from tests.support.fake_provider import Received, Upstream
from tests.support.router_process import wait_until


def rules(upstream: Upstream, second: Upstream) -> str:
    return f"""
providers:
  same: {{url: "{upstream.url}", auth: client, circuit: {{degraded_after: 1000, open_after: 1000}}}}
  other: {{url: "{upstream.url}", key: fake-key-of-the-test}}
  chat: {{url: "{upstream.url}/v1", api: openai, dialect: generic, key: fake-key-of-the-test}}
rules:
  - {{match: {{model: cached-pass}}, to: same}}
  - {{match: {{model: cached-swap}}, to: other/glm-4.7}}
  - {{match: {{model: cached-chat}}, to: chat/glm-4.7}}
  - {{match: {{model: moving}}, to: [same/claude-sonnet-4-6, other/claude-sonnet-4-6]}}
"""


@pytest.mark.slow
def test_no_byte_of_a_session_changes_that_need_not(shared: Shared) -> None:
    """Forty turns with tools, thinking and a cache mark that moves."""
    for way in ("pass", "swap", "chat"):
        translated = way == "chat"
        session = run(shared.router.url, shared.upstream, f"cached-{way}", turns=40, translated=translated)
        kept = compare(session, translated=translated)
        assert kept.prefix == 1.0, way
        assert kept.changed == (None if translated else 0), way


class Cache:
    """A provider's: what it was sent by a key is read from there when it is sent again. As Anthropic's it
    leaves out the line for billing, which differs each time."""

    def __init__(self) -> None:
        self._held: dict[str, list[bytes]] = defaultdict(list)
        self.failing = False

    def answer(self, got: Received) -> Answer:
        login = got.header("authorization") or ""
        if self.failing and login == LOGIN:
            return error_json(500, "api_error")
        now, before = [one for one in units(got.body) if b"billing-header" not in one], self._held[login]
        same = next((n for n, (a, b) in enumerate(zip(now, before, strict=False)) if a != b), len(before))
        self._held[login] = now
        usage = {
            "input_tokens": 3,
            "cache_read_input_tokens": sum(map(len, now[:same])),
            "cache_creation_input_tokens": sum(map(len, now[same:])),
            "output_tokens": 5,
        }
        return message_sse(got.json["model"], [f"Words {len(now)}."], usage)


@pytest.mark.slow
def test_no_edit_of_the_router_costs_a_cache_in_a_session_with_a_failover(shared: Shared) -> None:
    """The ledger names the cause of each miss: the provider changes twice, and nothing else does."""
    cache, router = Cache(), shared.router
    shared.upstream.answer(cache.answer)

    def send(body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        with closing(http.client.HTTPConnection("127.0.0.1", router.ports[0], timeout=60)) as connection:
            connection.request("POST", "/v1/messages", body, {**headers, "authorization": LOGIN})
            given = connection.getresponse()
            return given.status, given.read()

    talk = Conversation(send)
    for number in range(40):
        cache.failing = 15 <= number < 25
        talk.turn("moving")

    def causes() -> Counter[str | None]:
        with closing(sqlite3.connect(f"file:{router.state / 'ledger.sqlite'}?mode=ro", uri=True)) as ledger:
            rows = ledger.execute("SELECT cache_cause FROM requests WHERE model = 'moving'")
            return Counter(cause for (cause,) in rows)

    wait_until(lambda: causes().total() == 40, 10, lambda: f"forty rows: {causes()}")
    assert causes() == {None: 38, "provider": 2}

    with closing(http.client.HTTPConnection("127.0.0.1", router.ports[0], timeout=60)) as connection:
        connection.request("GET", f"/ui/sessions/{SESSION}")
        assert b"2 messages" in connection.getresponse().read()  # what each turn added
