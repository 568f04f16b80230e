"""What the machine does to the router: resets right after accept, no descriptors left, an early client."""

import itertools
import resource
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.fake_provider import Upstream
from tests.support.raw_client import Caller
from tests.support.router_process import (
    MITMDUMP,
    ROOT,
    START,
    Router,
    clean_environment,
    free_ports,
    wait_until,
)

ROUTER = Router
pytestmark = pytest.mark.slow

DEADLINE = 3.0
"""Seconds for which no attempt may take; the limit on a connect is 10."""


@pytest.fixture(scope="module")
def resetting() -> Iterator[int]:
    """The port of a server that resets each connection as soon as it has accepted it."""
    server = socket.create_server(("127.0.0.1", 0), backlog=1000)

    def serve() -> None:
        with suppress(OSError):
            while True:
                one, _ = server.accept()
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                one.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield server.getsockname()[1]
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join(5)


def rules(home: Upstream, up: Upstream, resetting: int) -> str:
    return f"""
limits: {{body: 40MB}}
providers:
  anthropic: {{url: "{home.url}", auth: client}}
  up: {{url: "{up.url}", key: up-key-for-tests-00001, circuit: {{open_after: 2}}}}
  reset: {{url: "http://127.0.0.1:{resetting}", key: up-key-for-tests-00001, circuit: {{open_after: 100000}}}}
rules:
  - {{match: "reset", to: [reset, anthropic]}}
  - {{match: "up", to: up}}
  - {{match: "second", to: [reset, up]}}
  - {{match: "*", to: anthropic}}
"""


def test_a_peer_that_resets_right_after_it_has_accepted_is_noticed_at_once(caller):
    for _ in range(150):
        began = time.monotonic()
        caller.ask("reset", False)
        answer = caller.answer()
        assert answer.headers["x-signalbox-attempts"] == "reset:connect anthropic:200"
        assert time.monotonic() - began < DEADLINE


def test_a_pipe_to_a_peer_that_resets_fails_at_once(start_router, resetting):
    router: Router = start_router(f"http://127.0.0.1:{resetting}", rules="")
    for _ in range(30):
        began = time.monotonic()
        with Caller(router) as caller:
            caller.ask("x", False)
            assert caller.answer().status == 502
        assert time.monotonic() - began < DEADLINE


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="sets a limit of another process")
def test_no_provider_is_blamed_where_the_router_has_no_descriptors_left(router, up, caller):
    pid = router.process.pid
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    caller.ask("claude-opus-4-5", False)
    assert caller.answer().status == 200
    used = {int(one.name) for one in Path(f"/proc/{pid}/fd").iterdir()}
    free = next(number for number in itertools.count() if number not in used)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        for _ in range(3):
            caller.ask("up", False)
            answer = caller.answer()
            assert answer.status == 503, answer
            assert b"Too many open files" in answer.body
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    assert not up.requests
    caller.ask("up", False)
    assert caller.answer().status == 200
    assert router.health()["providers"]["up"]["circuit"] == "closed"


THINKING = b'{"type":"thinking","thinking":"hmm","signature":"%b"},' % (b"c2ln" * 16)
"""Nobody knows whose, so that only Anthropic itself gets it."""


def many_tool_calls(model: bytes, size: int) -> bytes:
    """A body of about so many bytes: small messages, half of them with a thinking block."""
    call = b'{"role":"assistant","content":[%b{"type":"tool_use","id":"toolu_%d","name":"Read","input":{}}]}'
    result = b'{"role":"user","content":[{"type":"tool_result","tool_use_id":"toolu_%d","content":"%b"}]}'
    pairs = (b"%b,%b" % (call % (THINKING, i), result % (i, b"ok " * 30)) for i in range(size // 400))
    return b'{"model":"%b","max_tokens":9,"messages":[%b]}' % (model, b",".join(pairs))


def latencies(router: Router, over: Callable[[], bool]) -> list[float]:
    """Seconds that each of many small requests takes, one after another, until it is over."""
    took = []
    with Caller(router) as client:
        while not over():
            began = time.monotonic()
            client.ask("claude-opus-4-5", False)
            assert client.answer().status == 200
            took.append(time.monotonic() - began)
    return took


@pytest.mark.timeout(180)
def test_others_are_answered_at_once_while_a_body_of_30_mb_is_routed(router, up):
    body = many_tool_calls(b"up", 30_000_000)
    quiet_until = time.monotonic() + 0.5
    quiet = latencies(router, lambda: time.monotonic() > quiet_until)
    with ThreadPoolExecutor(1) as pool, Caller(router) as client:
        client.socket.settimeout(120)

        def ask() -> int:
            client.socket.sendall(client.head(len(body)) + body)
            return client.answer().status

        answer = pool.submit(ask)
        took = latencies(router, answer.done)
        assert answer.result() == 200
    assert up.requests[-1].body == body.replace(THINKING, b"")
    assert statistics.median(took) < statistics.median(quiet) + 0.1
    assert statistics.quantiles(took, n=20)[-1] < 0.5, sorted(took)[-5:]
    assert max(took) < 2.0, sorted(took)[-5:]  # beside other tests; 4 to 12 s without threads


@pytest.mark.timeout(60)
def test_a_large_body_goes_whole_to_the_target_that_takes_over(router, up):
    body = many_tool_calls(b"second", 3_000_000)
    with Caller(router) as client:
        client.socket.settimeout(60)
        client.socket.sendall(client.head(len(body)) + body)
        answer = client.answer()
    assert answer.headers["x-signalbox-attempts"] == "reset:connect up:200"
    assert up.requests[-1].body == body.replace(THINKING, b"")


@pytest.mark.timeout(60)
def test_a_client_that_leaves_while_its_large_body_is_routed_is_not_answered(router, up):
    body = many_tool_calls(b"up", 6_000_000)
    with Caller(router) as client:
        client.socket.sendall(client.head(len(body)) + body)
    with Caller(router) as client:
        client.ask("up", False)
        assert client.answer().status == 200
    router.records(2, 30)
    assert [len(one.body) < 1000 for one in up.requests] == [True]


def test_a_client_that_comes_before_the_router_is_ready_is_refused_and_harms_nothing(tmp_path, upstream):
    """Without `confdir` mitmproxy makes its certificates last of all."""
    (port,) = free_ports(1)
    (tmp_path / "rules.yaml").touch()
    settings = (
        f"router_{name}={tmp_path / path}" for name, path in (("rules", "rules.yaml"), ("state", "state"))
    )
    command = [
        MITMDUMP,
        "-s",
        ROOT / "addon" / "router.py",
        "--mode",
        f"reverse:{upstream.url}@127.0.0.1:{port}",
    ]
    over, told = threading.Event(), []

    def ask() -> None:
        while not over.is_set():
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as client:
                client.sendall(b"GET /v1/elsewhere HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                told.append(client.recv(100))

    thread = threading.Thread(target=ask)
    thread.start()
    process = subprocess.Popen(
        [*command, *(part for setting in settings for part in ("--set", setting))],
        env=clean_environment(tmp_path, {}),
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_until(
            lambda: told and told[-1].startswith(b"HTTP/1.1 200 "), START, lambda: f"an answer: {told}"
        )
        assert process.poll() is None
    finally:
        over.set()
        thread.join(10)
        process.terminate()
        process.wait(10)
    assert {one[:12] for one in told} <= {b"", b"HTTP/1.1 200"}
