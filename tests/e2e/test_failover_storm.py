"""Two thousand requests through targets that fail at random in every way: none hangs, is lost or mixed up."""

import http.client
import json
import random
import re
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from tests.support.answers import (
    Answer,
    compressed,
    error_json,
    event,
    json_answer,
    message_events,
    message_json,
    message_sse,
    sse,
    text_block,
)
from tests.support.fake_provider import Received, Upstream
from tests.support.router_process import Router, wait_until

ROUTER = Router

REQUESTS = 2000
WARM_UP = 500
AT_ONCE = 16
SEED = 20261
MODELS = 400
"""Enough that an overloaded one, which is in cooldown for seconds, spares the others."""
PADDING = "x" * 30_000
"""In each request, so that one that is kept shows in the memory."""
GROWTH = 20 * 1024
"""KiB that the router may have grown by. Kept requests alone would be twice that."""

SOON = (("retry-after-ms", "20"),)
HTML = (("Content-Type", "text/html"),)


@dataclass
class Sent:
    """One answer of an upstream: which kind it was, and what it would be billed."""

    provider: str
    marker: str
    kind: str
    piece: str
    usage: dict[str, int]
    answer: Answer


@dataclass
class Providers:
    """The answers of all upstreams. Each is a number, which stands in every piece of its text."""

    sent: list[Sent] = field(default_factory=list)
    _asked: Counter[tuple[str, str]] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def script(self, provider: str) -> Callable[[Received], Answer]:
        def answer(received: Received) -> Answer:
            asked = received.json
            marker = asked["marker"]
            with self._lock:
                number = len(self.sent)
                self._asked[provider, marker] += 1
                chance = random.Random(f"{SEED} {provider} {marker} {self._asked[provider, marker]}")
                kind = chance.choices(list(KINDS), [weight for weight, _ in KINDS.values()])[0]
                usage = {"input_tokens": 100 + number, "output_tokens": 1 + number}
                piece = f"{marker}/{number};"
                made = KINDS[kind][1](Asked(piece, asked, usage))
                self.sent.append(Sent(provider, marker, kind, piece, usage, made))
                return made

        return answer


@dataclass(frozen=True)
class Asked:
    piece: str
    request: Any
    usage: dict[str, int]

    @property
    def model(self) -> str:
        return str(self.request["model"])

    @property
    def events(self) -> list[bytes]:
        return message_events(self.model, [text_block("")], [self.piece] * 3, self.usage, self.usage)


def good(asked: Asked) -> Answer:
    if asked.request.get("stream"):
        return message_sse(asked.model, [asked.piece] * 3, asked.usage)
    return message_json(asked.model, asked.piece, asked.usage)


def early_error(asked: Asked) -> Answer:
    return sse(*asked.events[:3], event("error", error={"type": "overloaded_error", "message": "Overloaded"}))


def late_error(asked: Asked) -> Answer:
    return sse(*asked.events[:5], event("error", error={"type": "api_error", "message": "It broke"}))


def bad_chunk(asked: Asked) -> Answer:
    whole = sse(*asked.events[:5])
    framed = b"".join(whole.frame(chunk) for chunk in whole.chunks if isinstance(chunk, bytes))
    return Answer(framing="raw", chunks=(whole.head() + framed + b"not a size\r\n",), cut="close")


def fixed(answer: Answer) -> Callable[[Asked], Answer]:
    return lambda _: answer


def never(_: Asked) -> Answer:
    return Answer(wait=threading.Event())


KINDS: dict[str, tuple[float, Callable[[Asked], Answer]]] = {
    "good": (40, good),
    "good, compressed": (10, lambda asked: compressed(good(asked), "gzip")),
    "400": (2, fixed(error_json(400, "invalid_request_error"))),
    "408": (2, fixed(error_json(408, "timeout_error"))),
    "429": (4, fixed(error_json(429, "rate_limit_error", headers=SOON))),
    "quota": (2, fixed(json_answer({"error": {"code": "1113", "message": "Recharge"}}, 429, SOON))),
    "500": (4, fixed(error_json(500, "api_error"))),
    "502": (3, fixed(Answer(502, HTML, (b"<html><title>Bad gateway</title></html>",)))),
    "503": (3, fixed(error_json(503, "api_error", headers=SOON))),
    "529": (4, fixed(error_json(529, "overloaded_error", headers=SOON))),
    "closed": (3, fixed(Answer(framing="raw", cut="close"))),
    "reset": (3, fixed(Answer(framing="raw", cut="reset"))),
    "garbage": (2, fixed(Answer(framing="raw", chunks=(b"SSH-2.0-no\r\n\r\n",), cut="close"))),
    "slow": (1.5, never),
    "empty": (3, fixed(sse())),
    "cut early": (3, lambda asked: sse(*asked.events[:3], cut="reset")),
    "error early": (3, early_error),
    "200 with an error": (3, fixed(json_answer({"error": {"message": "no model is loaded"}}))),
    "error late": (2, late_error),
    "cut late": (3, lambda asked: sse(*asked.events[:5], cut="close")),
    "reset late": (3, lambda asked: sse(*asked.events[:5], cut="reset")),
    "garbage late": (2, bad_chunk),
}
GOOD = {"good", "good, compressed"}
LATE = {"error late", "cut late", "reset late", "garbage late"}
COUNTED = GOOD | LATE | {"cut early", "error early"}
"""Those that tell a usage, were they delivered."""


def rules(*upstreams: Upstream) -> str:
    limits = (
        "timeout: {connect: 2s, first_byte: 400ms, idle: 2s}, "
        "circuit: {degraded_after: 3, open_after: 6, cooldown: 50ms}"
    )
    a, b, c = (upstream.url for upstream in upstreams)
    return f"""
providers:
  a: {{url: "{a}", keys: [a-key-for-tests-0001, a-key-for-tests-0002], {limits}}}
  b: {{url: "{b}", key: b-key-for-tests-0001, {limits}}}
  c: {{url: "{c}", key: c-key-for-tests-0001, {limits}}}
  dead: {{url: "http://127.0.0.1:1", key: dead-key-for-tests-01, {limits}}}
rules:
  - {{match: "first-*", to: [a, b, c]}}
  - {{match: "dead-*", to: [dead, b, c]}}
  - {{match: "retried-*", to: [c, a], failover: {{retries: 1, wait: 100ms}}}}
  - {{match: "equal-*", to: [[a, b, c], dead, a]}}
"""


@dataclass
class Got:
    """What a client got for one request."""

    marker: str
    status: int
    attempts: str
    body: bytes
    is_cut: bool
    is_stream: bool


class Clients:
    """Each thread keeps its connection for as long as the router does."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._lines = threading.local()
        self._all: list[http.client.HTTPConnection] = []

    def ask(self, number: int) -> Got:
        marker = f"storm-{number}"
        chance = random.Random(f"{SEED} client {number}")
        family = chance.choice(["first", "dead", "retried", "equal"])
        asked = {
            "model": f"{family}-{chance.randrange(MODELS)}",
            "stream": chance.random() < 0.8,
            "marker": marker,
            "messages": [{"role": "user", "content": PADDING}],
        }
        line = self._line()
        line.request("POST", "/v1/messages", json.dumps(asked), {"X-Claude-Code-Session-Id": marker})
        answer = line.getresponse()
        try:
            body, is_cut = answer.read(), False
        except (http.client.IncompleteRead, ConnectionError) as cut:
            body, is_cut = getattr(cut, "partial", b""), True
            line.close()
        is_stream = answer.headers.get_content_type() == "text/event-stream"
        attempts = answer.headers.get("x-signalbox-attempts", "")
        return Got(marker, answer.status, attempts, body, is_cut, is_stream)

    def _line(self) -> http.client.HTTPConnection:
        if not hasattr(self._lines, "line"):
            self._lines.line = http.client.HTTPConnection("127.0.0.1", self._port, timeout=15)
            self._all.append(self._lines.line)
        line: http.client.HTTPConnection = self._lines.line
        return line

    def close(self) -> None:
        for line in self._all:
            line.close()


class Process:
    """What a process holds, as Linux tells."""

    def __init__(self, pid: int, state: Path) -> None:
        self._folder = Path(f"/proc/{pid}")
        self._state = state

    def open_files(self) -> int:
        """Connections and files, less those of the record, which are opened by the first request and stay."""
        count = 0
        for link in (self._folder / "fd").iterdir():
            with suppress(FileNotFoundError):  # closed just now
                count += not link.readlink().is_relative_to(self._state)
        return count

    def memory(self) -> int:
        """KiB."""
        told = re.search(r"VmRSS:\s+(\d+)", (self._folder / "status").read_text())
        assert told is not None
        return int(told[1])


def delivered(got: Got, sent: list[Sent]) -> Sent | None:
    """The answer that the client was given, which must be one of its own and no other; None for an error."""
    provider, _, label = got.attempts.rpartition(" ")[2].partition(":")
    if not label.isdecimal():  # the router's own words, or an error in a stream where none was asked for
        assert json.loads(got.body)["type"] == "error", got
        assert got.status in (500, 502, 504, 529), got
        return None
    last = [one for one in sent if (one.marker, one.provider) == (got.marker, provider)][-1]
    assert str(last.answer.status) == label, (got, last)
    assert got.status == last.answer.status, (got, last)
    if last.kind not in GOOD | LATE:  # of the last one, as it came
        assert last.answer.body.startswith(got.body), (got, last)
        assert got.is_cut or got.body == last.answer.body, (got, last)
        assert got.is_cut == (last.answer.cut is not None), (got, last)
    elif got.is_stream:
        check_stream(got, last)
    else:
        assert json.loads(got.body)["content"][0]["text"] == last.piece, (got, last)
    return last


def check_stream(got: Got, one: Sent) -> None:
    """One message from its start to its end, or to where its upstream broke off, and nothing of another."""
    events = [json.loads(data) for data in re.findall(rb"^data: (.*)\n\n", got.body, re.MULTILINE)]
    kinds = [event["type"] for event in events if event["type"] != "ping"]
    pieces = [event["delta"]["text"] for event in events if event["type"] == "content_block_delta"]
    assert kinds[:1] == ["message_start"] or (not kinds and one.answer.cut == "reset"), (got, one)
    assert "message_start" not in kinds[1:], got
    assert set(pieces) <= {one.piece}, (got, one)
    assert got.is_cut == (one.answer.cut is not None), (got, one)
    if one.kind in LATE:
        assert (kinds[-1:] == ["error"]) == (one.kind == "error late"), (got, one)
    else:
        assert kinds[-1:] == ["message_stop"], got
        assert len(pieces) == 3, got


def check_record(row: dict[str, Any], got: Got, one: Sent | None, others: list[Sent]) -> None:
    """The record tells what the client was given, and the tokens of all attempts. `others` are the answers to
    the request that the client was not given; a reset may take back what was sent before it."""
    attempts = re.sub(r"200$", "stream_error", got.attempts) if got.is_cut else got.attempts
    assert row["attempts"] == attempts, (row, got)
    whole = one is not None and one.kind in GOOD
    assert row["status"] == ("success" if whole else "error"), (row, got, one)
    usages = [other.usage for other in others if other.kind in COUNTED]
    if one is not None and one.kind in COUNTED:
        usages.append(one.usage)
    told = {name: row[name] for name in ("input_tokens", "output_tokens")}
    sums = [
        {name: sum(usage[name] for usage in chosen) for name in told}
        for number in range(len(usages) + 1)
        for chosen in combinations(usages, number)
        if not whole or (one is not None and one.usage in chosen)
    ]
    assert told in sums, (row, got, one, others)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux for what a process holds")
def test_a_storm_of_faults_leaves_every_answer_whole_and_nothing_behind(start_router):
    providers = Providers()
    with Upstream() as a, Upstream() as b, Upstream() as c:
        for name, upstream in (("a", a), ("b", b), ("c", c)):
            upstream.answer(providers.script(name))
        router: Router = start_router(a.url, rules=rules(a, b, c))
        process, clients = Process(router.process.pid, router.state), Clients(router.ports[0])
        ledger = router.state / "ledger.sqlite-shm"
        wait_until(ledger.exists, 5, lambda: "the ledger to be opened")
        open_files = process.open_files()
        began = time.monotonic()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            answers = list(pool.map(clients.ask, range(WARM_UP)))
            memory = process.memory()
            answers += pool.map(clients.ask, range(WARM_UP, REQUESTS))
        took = time.monotonic() - began
        clients.close()
        wait_until(lambda: process.open_files() <= open_files, 5, lambda: f"{process.open_files()} files")
        growth = process.memory() - memory
        rows = {row["session"]: row for row in router.records(REQUESTS)}
        log = router.log()
    sent = defaultdict(list)
    for answer in providers.sent:
        sent[answer.marker].append(answer)
    for got in answers:
        one = delivered(got, providers.sent)
        others = [other for other in sent[got.marker] if other is not one]
        check_record(rows[got.marker], got, one, others)
    assert took < 150
    assert len(rows) == REQUESTS
    assert {one.kind for one in providers.sent} == set(KINDS)
    assert growth < GROWTH
    assert "error in the" not in log
    assert "Traceback" not in log
