"""A client that leaves, Esc in Claude Code: whoever is asked for it is let go at once, in every phase."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.answers import USAGE, Answer, error_json, message_events, message_json, sse, text_block
from tests.callers import Caller
from tests.conftest import Shared
from tests.haste import HELD
from tests.running import Router, wait_until, with_scripts
from tests.upstream import Upstream

ROUTER = Router

BOUND = 1.0
"""Seconds until an upstream must be let go: enough on a busy machine, not enough to finish an upload."""


def rules(home: Upstream, zai: Upstream, hole: int, mute: int, deaf: socket.socket) -> str:
    touchy = "circuit: {degraded_after: 1, open_after: 1}"
    return f"""
providers:
  anthropic: {{url: "{home.url}", auth: client}}
  zai: {{url: "{zai.url}", key: zai-key-for-tests-0001, {touchy}}}
  waits: {{url: "{zai.url}", key: zai-key-for-tests-0001}}
  hole: {{url: "http://127.0.0.1:{hole}", key: hole-key-for-tests-01, {touchy}}}
  mute: {{url: "https://127.0.0.1:{mute}", key: mute-key-for-tests-01, {touchy}}}
  fails: {{url: "{zai.url}", key: zai-key-for-tests-0001, circuit: {{degraded_after: 100, open_after: 100}}}}
  deaf: {{url: "http://127.0.0.1:{deaf.getsockname()[1]}", key: deaf-key-for-tests-01, {touchy}}}
rules:
  - {{match: "zai", to: [zai, anthropic]}}
  - {{match: "last", to: zai}}
  - {{match: "waits", to: [waits, anthropic], failover: {{wait: 30s}}}}
  - {{match: "hole", to: [hole, anthropic]}}
  - {{match: "mute", to: [mute, anthropic]}}
  - {{match: "fails", to: [fails, anthropic]}}
  - {{match: "deaf", to: [deaf, anthropic]}}
log: {{level: debug}}
"""


OPTIONS = with_scripts("haste.py")


@pytest.fixture(scope="module")
def deaf() -> Iterator[socket.socket]:
    """A server that accepts and does not read."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        yield server


@pytest.fixture
def record(shared: Shared, caller: Caller) -> Callable[[], dict[str, Any]]:
    """The request's one record, once it is sure that no other follows, and that nobody is blamed."""

    def record() -> dict[str, Any]:
        shared.router.records(1, timeout=BOUND)
        with Caller(shared.router, "after") as other:
            other.ask("something-else")
            other.answer()
        found, _ = shared.router.records(2)
        assert len(shared.router.records()) == 2
        providers = shared.router.health()["providers"]
        assert {provider["circuit"] for provider in providers.values()} == {"closed"}
        assert [one.json["model"] for one in shared.upstream.requests] == ["something-else"]
        return found

    return record


def tokens(record: dict[str, Any]) -> tuple[int, int]:
    return record["input_tokens"], record["output_tokens"]


STARTED = {**USAGE, "output_tokens": 1}
EVENTS = message_events("glm", [text_block("")], ["half", "whole"], STARTED, USAGE)
EARLY, HALF = b"".join(EVENTS[:3]), EVENTS[3]


def test_while_it_sends_its_request(shared, caller, record):
    caller.socket.sendall(caller.head(1000) + b'{"model":"zai",')
    caller.leave()
    assert record()["status"] == "cancelled"
    assert not shared.second.requests


@pytest.mark.parametrize("name", ["hole", "mute"], ids=["no connection yet", "no TLS on it yet"])
def test_while_a_connection_is_made(shared, caller, record, name):
    caller.ask(name)
    shared.router.wait_log(f"→ {name} POST")
    caller.leave()
    told = record()
    assert (told["status"], told["attempts"], told["backend"]) == ("cancelled", f"{name}:cancelled", name)


@pytest.mark.parametrize("model", ["zai", "last"])
def test_before_there_is_an_answer(shared, caller, record, never, model):
    shared.second.answer(Answer(wait=never))
    caller.ask(model)
    shared.second.wait_for(1)
    left = caller.leave()
    assert shared.second.wait_left(1)[0].time - left < BOUND
    told = record()
    assert (told["status"], told["attempts"], tokens(told)) == ("cancelled", "zai:cancelled", (0, 0))


def test_while_an_answer_is_held(shared, caller, record, never):
    shared.second.answer(sse(EARLY, never))
    caller.ask("zai")
    shared.second.wait_for(1)
    assert caller.is_quiet(HELD / 4)
    left = caller.leave()
    assert shared.second.wait_left(1)[0].time - left < BOUND
    told = record()
    assert (told["status"], told["attempts"]) == ("cancelled", "zai:cancelled")
    assert tokens(told) == (USAGE["input_tokens"], 1)


def test_while_a_whole_answer_is_held(shared, caller, record, never):
    whole = message_json("glm")
    shared.second.answer(Answer(200, whole.headers, (whole.body[:10], never), "chunked"))
    caller.ask("zai", stream=False)
    shared.second.wait_for(1)
    assert caller.is_quiet(HELD / 4)
    left = caller.leave()
    assert shared.second.wait_left(1)[0].time - left < BOUND
    assert record()["status"] == "cancelled"


@pytest.mark.parametrize("come", ["head", "nothing"])
def test_while_it_gets_pings(shared, caller, record, never, come):
    shared.second.answer(sse(EARLY, never) if come == "head" else Answer(wait=never))
    caller.ask("zai")
    caller.until(b"event: ping\n")
    left = caller.leave()
    assert shared.second.wait_left(1)[0].time - left < BOUND
    told = record()
    assert (told["status"], told["attempts"]) == ("cancelled", "zai:cancelled")
    assert tokens(told) == ((USAGE["input_tokens"], 1) if come == "head" else (0, 0))


def test_between_two_attempts(shared, caller, record):
    shared.second.answer(error_json(429, "rate_limit_error", headers=(("retry-after", "20"),)))
    caller.ask("waits")
    shared.router.wait_log("↻ waits 429")
    caller.leave()
    told = record()
    assert (told["status"], told["attempts"]) == ("cancelled", "waits:429")
    assert len(shared.second.requests) == 1


@pytest.mark.parametrize("model", ["zai", "last"])
def test_in_the_middle_of_an_answer(shared, caller, record, never, model):
    shared.second.answer(sse(EARLY, HALF, never))
    caller.ask(model)
    caller.until(b"half")
    left = caller.leave()
    assert shared.second.wait_left(1)[0].time - left < BOUND
    told = record()
    assert (told["status"], told["attempts"]) == ("cancelled", "zai:cancelled")
    assert tokens(told) == (USAGE["input_tokens"], 1)


def test_when_it_only_stops_sending(shared, caller, record, never):
    """Half a close is a leaving: no client of the Messages API does that and still reads."""
    shared.second.answer(sse(EARLY, HALF, never))
    caller.ask("last")
    caller.until(b"half")
    caller.socket.shutdown(socket.SHUT_WR)
    left = time.monotonic()
    assert shared.second.wait_left(1)[0].time - left < BOUND
    assert record()["status"] == "cancelled"


def test_while_a_long_request_is_being_sent_on(shared, caller, record, deaf):
    """The rest of it is not sent any more; to close the connection in the usual way would do that first."""
    caller.ask("deaf", pad=20_000_000)
    connection, _ = deaf.accept()
    with connection:
        connection.settimeout(BOUND)
        connection.recv(1000)
        left = caller.leave()
        assert record()["status"] == "cancelled"
        with pytest.raises(ConnectionResetError):
            list(iter(lambda: connection.recv(1 << 20), b""))
        assert time.monotonic() - left < 2 * BOUND


def silent(shared: Shared, one: Caller, never: threading.Event) -> Upstream:
    shared.second.answer(Answer(wait=never))
    return asked(one, "zai", shared.second)


def held(shared: Shared, one: Caller, never: threading.Event) -> Upstream:
    shared.second.answer(sse(EARLY, never))
    return asked(one, "zai", shared.second)


def pinged(shared: Shared, one: Caller, never: threading.Event) -> Upstream:
    provider = held(shared, one, never)
    one.until(b"event: ping\n")
    return provider


def answering(shared: Shared, one: Caller, never: threading.Event) -> Upstream:
    shared.second.answer(sse(EARLY, HALF, never))
    one.ask("zai")
    one.until(b"half")
    return shared.second


def failed_over(shared: Shared, one: Caller, never: threading.Event) -> Upstream:
    shared.second.answer(error_json(500, "api_error"))
    shared.upstream.answer(Answer(wait=never))
    return asked(one, "fails", shared.upstream)


def asked(one: Caller, model: str, provider: Upstream) -> Upstream:
    """Once the provider has the request, and some time to begin its answer."""
    before = len(provider.requests)
    one.ask(model)
    provider.wait_for(before + 1)
    assert one.is_quiet(HELD / 4)
    return provider


@pytest.mark.parametrize("phase", [silent, held, pinged, answering, failed_over])
def test_whoever_is_asked_is_let_go_within_200_ms(shared, request, never, phase):
    """The quickest of three tries tells: the machine may be busy with other things."""

    def took() -> float:
        with Caller(shared.router, request.node.name) as one:
            provider = phase(shared, one, never)
            gone = len(provider.left)
            left = one.leave()
            return provider.wait_left(gone + 1)[-1].time - left

    assert min(took() for _ in range(3)) < 0.2
    assert {record["status"] for record in shared.router.records(3, session=request.node.name)} == {
        "cancelled"
    }


def test_in_great_haste_again_and_again(shared, request):
    """Whatever the router is at in the first moments: each is recorded, once, and nothing stays behind."""
    session = request.node.name
    for number in range(60):
        with Caller(shared.router, session) as one:
            one.ask("hole" if number % 2 else "zai", pad=number * 3000)
    records = shared.router.records(60, session=session)
    assert {record["status"] for record in records} <= {"cancelled", "success"}
    assert len(records) == 60
    wait_until(lambda: not shared.router.log().count("fault"), 1, shared.router.log)
