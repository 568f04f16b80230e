"""10,000 requests: what the ledger adds up is exactly what the providers counted."""

import http.client
import json
import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from signalbox.anthropic.api import TOKEN_FIELDS
from tests.support.answers import (
    Answer,
    Usage,
    error_json,
    event,
    message_events,
    message_json,
    sse,
    text_block,
)
from tests.support.fake_provider import Received, Upstream
from tests.support.ledger import LedgerStore
from tests.support.router_process import Router, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CLIENTS = 8


class Counting:
    """A provider that counts what it says each of its answers has used, in whatever way it says it."""

    def __init__(self, upstream: Upstream, name: str) -> None:
        self.name = name
        self.used: Counter[str] = Counter()
        self.answers = self.refusals = 0
        self._random = random.Random(name)
        self._lock = threading.Lock()
        upstream.answer(self._answer)

    def _answer(self, received: Received) -> Answer:
        body = received.json
        with self._lock:
            if self.name == "first" and self._random.random() < 0.05:
                self.refusals += 1
                return error_json(500, "api_error", "broken")
            usage: Usage = {field: self._random.randrange(5000) for field in TOKEN_FIELDS}
            usage["output_tokens"] += 2
            breaks = self.name == "first" and body["stream"] and self._random.random() < 0.03
            self.answers += 1
            self.used.update(usage | ({"output_tokens": 1} if breaks else {}))
        if not body["stream"]:
            return message_json(body["model"], usage=usage)
        start = {**usage, "output_tokens": 1}
        events = message_events(body["model"], [text_block("")], ["half", "whole"], start, usage)
        if breaks:  # before its answer has begun: another provider takes over, and this one is paid too
            return sse(*events[:2], event("error", error={"type": "api_error", "message": "broken"}))
        return sse(*events)


@pytest.mark.parametrize(("engine", "number"), [("sqlite", 10_000), ("postgresql", 1_000)])
def test_the_sums_of_the_ledger_are_what_the_providers_counted(request, tmp_path: Path, engine, number):
    url = engine if engine == "sqlite" else request.getfixturevalue("postgres").new_database()
    store = LedgerStore(tmp_path / "state", url)
    with Upstream() as up, Upstream() as other:
        first, second = Counting(up, "first"), Counting(other, "second")
        rules = f"""
providers:
  first: {{url: "{up.url}", key: key-for-tests-0001, circuit: {{open_after: 1000000}}}}
  second: {{url: "{other.url}", key: key-for-tests-0002}}
rules:
  - {{match: "*", to: [first, second], failover: {{on: [500, stream_error]}}}}
log: {{level: error}}
ledger: {url}
"""
        with Router(tmp_path, up.url, rules=rules) as router:
            with ThreadPoolExecutor(CLIENTS) as pool:
                sent = [pool.submit(client, router, name, number // CLIENTS) for name in range(CLIENTS)]
                assert all(one.result(500) for one in sent)
            count = "SELECT count(*) FROM requests"
            wait_until(lambda: store.rows(count) == [number], 20, lambda: f"{store.rows(count)} rows")
    sums = ", ".join(f"sum({field})" for field in TOKEN_FIELDS)
    (requests,) = store.rows(f"SELECT {sums} FROM requests")
    attempts = {row[0]: row[1:] for row in store.rows(f"SELECT provider, {sums} FROM attempts GROUP BY 1")}
    told = {one.name: tuple(one.used[field] for field in TOKEN_FIELDS) for one in (first, second)}
    assert attempts == told
    assert tuple(requests) == tuple(sum(pair) for pair in zip(*told.values(), strict=True))
    (paid,) = store.rows("SELECT count(*) FROM attempts")
    assert paid == first.answers + first.refusals + second.answers
    assert first.refusals > 0
    assert second.answers > first.refusals


def client(router: Router, name: int, number: int) -> bool:
    """Send so many requests on one connection; whether all were answered."""
    headers = {"authorization": "Bearer x", "x-claude-code-session-id": f"s-{name}"}
    with closing(http.client.HTTPConnection("127.0.0.1", router.ports[0], timeout=60)) as connection:
        for one in range(number):
            said = [{"role": "user", "content": "Hi"}]
            body = {"model": f"m-{one % 50}", "max_tokens": 9, "stream": one % 3 > 0, "messages": said}
            connection.request("POST", "/v1/messages", json.dumps(body), headers)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                return False
    return True
