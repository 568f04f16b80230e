"""How long is waited for whom."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import pytest

from tests.answers import (
    USAGE,
    Answer,
    event,
    message_json,
    message_sse,
    sse,
)
from tests.brief import KEPT
from tests.callers import Caller
from tests.pieces import EARLY, REST
from tests.running import Router, with_scripts
from tests.upstream import Upstream

ROUTER = Router

LIMIT = 0.3
"""Of the impatient providers, for each kind of waiting."""
SOON = 3.0
"""What takes longer has not been given up in time."""


def rules(home: Upstream, zai: Upstream, hole: int, mute: int, slow_server: socket.socket) -> str:
    slow = slow_server.getsockname()[1]
    quick = f"timeout: {{connect: {LIMIT}s, first_byte: {LIMIT}s, idle: {LIMIT}s}}"
    well = "circuit: {open_after: 100000}"
    return f"""
providers:
  anthropic: {{url: "{home.url}", auth: client}}
  zai: {{url: "{zai.url}", key: zai-key-for-tests-0001, {quick}, {well}}}
  hole: {{url: "http://127.0.0.1:{hole}", key: hole-key-for-tests-01, {quick}, {well}}}
  mute: {{url: "https://127.0.0.1:{mute}", key: mute-key-for-tests-01, {quick}, {well}}}
  slow: {{url: "http://127.0.0.1:{slow}", key: slow-key-for-tests-01, timeout: {{first_byte: 1s}}, {well}}}
rules:
  - {{match: "to-slow", to: [slow, anthropic/claude-opus-4-5]}}
  - {{match: "zai-*", to: [zai, anthropic/claude-opus-4-5]}}
  - {{match: "last-*", to: zai}}
  - {{match: "to-hole-*", to: [hole, anthropic/claude-opus-4-5]}}
  - {{match: "to-mute-*", to: [mute, anthropic/claude-opus-4-5]}}
  - {{match: "only-hole", to: hole}}
"""


OPTIONS = with_scripts("haste.py", "brief.py")


@pytest.fixture(scope="module")
def slow_server() -> Iterator[socket.socket]:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server


class Slow:
    """A provider that reads as if over a thin line, and not at all while it is stuck."""

    PIECE = 65_536
    PACE = 0.004

    def __init__(self, server: socket.socket) -> None:
        self.server = server
        self.stuck, self.over = threading.Event(), threading.Event()

    def serve(self) -> None:
        connection, _ = self.server.accept()
        with connection, suppress(ConnectionError):
            head, _, body = connection.recv(65536).partition(b"\r\n\r\n")
            left = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]) - len(body)
            while left > 0 and not self.over.wait(self.PACE):
                if not self.stuck.is_set():
                    left -= len(connection.recv(self.PIECE))
            answer = message_sse("slow")
            connection.sendall(answer.head() + b"".join(map(answer.frame, answer.chunks)) + b"0\r\n\r\n")


@pytest.fixture
def slow(slow_server: socket.socket) -> Iterator[Slow]:
    one = Slow(slow_server)
    thread = threading.Thread(target=one.serve)
    thread.start()
    yield one
    one.over.set()
    thread.join()


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("provider", ["hole", "mute"], ids=["no connection", "no TLS on it"])
def test_a_connection_that_does_not_come_about_in_time_is_given_up(caller, named, provider, stream):
    began = time.monotonic()
    caller.ask(named(f"to-{provider}"), stream)
    answer = caller.answer()
    assert answer.status == 200
    assert answer.headers["x-signalbox-attempts"] == f"{provider}:timeout anthropic:200"
    assert LIMIT <= time.monotonic() - began < SOON


def test_where_nobody_else_is_there_a_late_connection_is_a_504(shared, caller):
    for _ in range(2):  # also the second time on this connection
        caller.ask("only-hole")
        answer = caller.answer()
        assert answer.status == 504
        error = json.loads(answer.body)
        assert error["type"] == "error"
        assert error["error"]["type"] == "timeout_error"
        assert error["error"]["message"].startswith("hole could not be reached at 127.0.0.1:")
        assert error["error"]["message"].endswith(f"no connection within {LIMIT:g} s")
        assert answer.headers["x-signalbox-attempts"] == "hole:timeout"
    records = shared.router.records(2, session=caller.session)
    assert [record["status"] for record in records] == ["error", "error"]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_a_provider_that_says_nothing_is_given_up(shared, caller, named, gate, stream):
    shared.second.answer(Answer(wait=gate))
    began = time.monotonic()
    caller.ask(named("zai"), stream)
    answer = caller.answer()
    assert answer.status == 200
    assert answer.headers["x-signalbox-attempts"] == "zai:timeout anthropic:200"
    assert LIMIT <= time.monotonic() - began < SOON
    assert shared.second.wait_left(1)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_where_nobody_else_is_there_silence_is_a_504(shared, caller, named, gate, stream):
    shared.second.answer(Answer(wait=gate))
    caller.ask(named("last"), stream)
    answer = caller.answer()
    assert answer.status == 504
    assert json.loads(answer.body)["error"] == {
        "type": "timeout_error",
        "message": f"zai sent no answer within {LIMIT:g} s",
    }
    assert shared.second.wait_left(1)


def test_a_head_without_an_answer_is_given_up(shared, caller, named, gate):
    shared.second.answer(sse(EARLY, gate))
    caller.ask(named("zai"))
    answer = caller.answer()
    assert answer.headers["x-signalbox-attempts"] == "zai:timeout anthropic:200"
    assert b"from-zai" not in answer.body
    assert shared.second.wait_left(1)


def test_a_whole_answer_that_stops_half_way_is_given_up(shared, caller, named, gate):
    whole = message_json("glm")
    shared.second.answer(
        Answer(200, whole.headers, (whole.body[:50], gate, whole.body[50:]), "length", len(whole.body))
    )
    caller.ask(named("zai"), stream=False)
    answer = caller.answer()
    assert answer.headers["x-signalbox-attempts"] == "zai:timeout anthropic:200"
    assert b"glm" not in answer.body


def test_silence_after_the_answer_has_begun_cuts_the_client_off(shared, caller, named, gate):
    shared.second.answer(sse(EARLY + REST[:-60], gate))
    caller.ask(named("zai"))
    caller.until(b"from-zai")
    left = caller.until_closed()
    assert not left.endswith(b"0\r\n\r\n")
    assert shared.second.wait_left(1)
    record = shared.router.records(1, session=caller.session)[0]
    assert record["status"] == "error"
    assert record["attempts"] == "zai:timeout"
    assert record["input_tokens"] == USAGE["input_tokens"]
    assert not shared.upstream.requests


def test_an_answer_that_comes_slowly_but_steadily_is_no_silence(shared, caller, named):
    pieces = [part for _ in range(6) for part in (event("ping"), LIMIT / 3)]
    shared.second.answer(sse(EARLY, *pieces, REST))
    caller.ask(named("zai"))
    assert caller.answer().headers["x-signalbox-attempts"] == "zai:200"
    assert shared.router.records(1, session=caller.session)[0]["attempts"] == "zai:200"


def test_a_client_that_reads_slowly_is_no_silent_provider(shared, caller, named):
    pad = b": " + b"x" * 65536 + b"\n\n"
    shared.second.answer(sse(EARLY, REST[:-60], *[pad] * 150, REST[-60:]))
    caller.ask(named("zai"))
    caller.until(b"from-zai")
    end = time.monotonic() + 4 * LIMIT
    threading.Event().wait(end - time.monotonic())  # the time in which it does not read
    caller.until(b"message_stop")
    caller.until(b"0\r\n\r\n")
    assert shared.router.records(1, session=caller.session)[0]["status"] == "success"


def test_a_long_request_to_a_slow_provider_is_not_taken_for_silence(shared, caller, slow):
    """The time for an answer counts from when the request is sent."""
    began = time.monotonic()
    caller.ask("to-slow", pad=20_000_000)
    assert b"slow" in caller.answer().body
    assert time.monotonic() - began > 1
    assert shared.router.records(1, session=caller.session)[0]["attempts"] == "slow:200"


def test_a_long_request_that_gets_on_no_more_is_given_up(shared, caller, slow):
    slow.stuck.set()
    caller.ask("to-slow", pad=20_000_000)
    assert caller.answer().status == 200
    assert shared.router.records(1, session=caller.session)[0]["attempts"] == "slow:timeout anthropic:200"


def test_a_connection_that_was_silent_for_long_is_not_used_again(shared, caller, named):
    shared.second.answer(message_sse("last"))
    for _ in range(2):
        caller.ask(named("last"))
        assert caller.answer().status == 200
    assert not threading.Event().wait(KEPT)
    caller.ask(named("last"))
    assert caller.answer().status == 200
    first, soon, late = (request.connection for request in shared.second.requests)
    assert first == soon != late
    assert shared.second.wait_left(1)[0].connection == first


def test_a_client_is_not_cut_off_because_its_provider_takes_longer_than_mitmproxys_own_limit(
    start_router, upstream, gate
):
    upstream.answer(replace(message_json(), wait=gate))
    rules = f'providers: {{zai: {{url: "{upstream.url}", key: k}}}}\nrules: [{{match: "*", to: zai}}]'
    router = start_router(upstream.url, rules=rules, options=("--set", "tcp_timeout=1"))
    with Caller(router) as caller:
        caller.ask("a-slow-one", stream=False)
        assert caller.is_quiet(2.5)
        gate.set()
        assert caller.answer().status == 200
