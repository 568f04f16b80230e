"""Failover over real sockets: what a playbook (`test_proxy_stream_*`) cannot show."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from tests.conftest import Shared
from tests.support.answers import (
    Answer,
    error_json,
    message_json,
    message_sse,
    sse,
)
from tests.support.fake_provider import Received, Upstream
from tests.support.http2 import Caller2, Upstream2
from tests.support.raw_client import Caller
from tests.support.stream_fixtures import BROKEN, EARLY, NOISE, REST
from tests.support.tls import TlsUpstream, certify

LIMIT = 0.3
"""Of the impatient providers, for each kind of waiting."""
SOON = 3.0
"""What takes longer has not been given up in time."""
BOUND = 1.0
"""Seconds until an upstream must be released: enough on a busy machine, not enough to finish an upload."""


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsUpstream]:
    with TlsUpstream(certify(tmp_path_factory.mktemp("certificate") / "server.pem")) as one:
        yield one


@pytest.fixture(scope="module")
def multiplexed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream2]:
    with Upstream2(certify(tmp_path_factory.mktemp("certificate") / "server.pem")) as one:
        yield one


@pytest.fixture(scope="module")
def reader() -> Iterator[socket.socket]:
    """A server that reads only as the test does."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.settimeout(10)
        yield server


def rules(
    home: Upstream,
    zai: Upstream,
    tls: TlsUpstream,
    multiplexed: Upstream2,
    hole: int,
    mute: int,
    no_tls: int,
    reader: socket.socket,
) -> str:
    key = "key: zai-key-for-tests-0001, circuit: {degraded_after: 100000, open_after: 100000}"
    quick = f"{key}, timeout: {{connect: {LIMIT}s, first_byte: {LIMIT}s, idle: {LIMIT}s}}"
    return f"""
providers:
  anthropic: {{url: "{home.url}", auth: client}}
  zai: {{url: "{zai.url}", {key}}}
  quick: {{url: "{zai.url}", {quick}}}
  dead: {{url: "http://127.0.0.1:1", {key}}}
  nowhere: {{url: "http://nowhere.invalid", {key}}}
  hole: {{url: "http://127.0.0.1:{hole}", {quick}}}
  mute: {{url: "https://127.0.0.1:{mute}", {quick}}}
  no-tls: {{url: "https://127.0.0.1:{no_tls}", {key}}}
  tls: {{url: "{tls.url}", {key}}}
  multi: {{url: "{multiplexed.url}", {key}}}
  reader: {{url: "http://127.0.0.1:{reader.getsockname()[1]}", {key}, timeout: {{first_byte: 1s}}}}
rules:
  - {{match: "zai*", to: [zai, anthropic]}}
  - {{match: "quick*", to: [quick, anthropic]}}
  - {{match: "dead", to: [dead, anthropic]}}
  - {{match: "nowhere", to: [nowhere, anthropic]}}
  - {{match: "hole", to: [hole, anthropic]}}
  - {{match: "mute", to: [mute, anthropic]}}
  - {{match: "no-tls", to: [no-tls, anthropic]}}
  - {{match: "tls", to: [tls, anthropic]}}
  - {{match: "multi*", to: [multi, anthropic]}}
  - {{match: "reader", to: [reader, anthropic]}}
"""


OPTIONS = ("--set", "ssl_insecure=true")


def attempts(caller: Caller, model: str, stream: bool = True) -> str:
    caller.ask(model, stream)
    answer = caller.answer()
    assert answer.status == 200
    return answer.headers["x-signalbox-attempts"]


@pytest.mark.slow
def test_a_provider_that_cannot_be_reached_or_not_in_time_is_passed_by(caller):
    for name in ("dead", "nowhere", "no-tls"):
        assert [attempts(caller, name) for _ in range(2)] == [f"{name}:connect anthropic:200"] * 2
    for name in ("hole", "mute"):  # no connection, and no TLS on it
        began = time.monotonic()
        assert attempts(caller, name) == f"{name}:timeout anthropic:200"
        assert LIMIT <= time.monotonic() - began < SOON


def test_the_next_target_takes_over_before_an_answer_has_begun(shared, caller, named):
    """After its head and its first event, before its answer has begun; but not after that."""
    for answer in (sse(EARLY, cut="reset"), sse(EARLY, cut="close"), sse(EARLY, BROKEN, *NOISE)):
        shared.second.answer(answer)
        model = named("zai")
        caller.ask(model)
        told = caller.answer()
        assert told.headers["x-signalbox-attempts"] == "zai:stream_error anthropic:200"
        assert told.body == message_sse(model).body
    shared.upstream.reset()
    shared.second.answer(sse(EARLY, REST[:-60], cut="reset"))
    caller.ask(named("zai"))
    assert not caller.until_closed().endswith(b"0\r\n\r\n"), "cut, as its answer was"
    assert not shared.upstream.requests
    records = shared.router.records(4, session=caller.session)
    assert [record["status"] for record in records] == ["success"] * 3 + ["error"]


def test_a_kept_connection_that_was_reset_meanwhile_is_no_failure(shared, caller):
    used: set[int] = set()

    def once(received: Received) -> Answer:
        if received.connection in used:
            return Answer(framing="raw", cut="reset")
        used.add(received.connection)
        return message_json("zai")

    shared.second.answer(once)
    for _ in range(3):
        assert attempts(caller, "zai", stream=False) == "zai:200"
    assert len(used) == 3


def test_a_provider_with_tls_may_fail_and_answer(caller, tls):
    tls.reset()
    tls.answer(error_json(500, "api_error"), message_sse("tls"))
    assert [attempts(caller, "tls") for _ in range(2)] == ["tls:500 anthropic:200", "tls:200"]


# leaving


@pytest.mark.slow
def test_when_the_client_leaves_its_upstream_is_reset_within_200_ms(shared, request, never):
    """While it is silent, held or answering. The quickest of three tries tells: the machine may be busy with
    other things."""

    def took(*come: bytes) -> float:
        shared.second.answer(sse(*come, never) if come else Answer(wait=never))
        with Caller(shared.router, request.node.name) as one:
            before = len(shared.second.requests)
            one.ask("zai")
            shared.second.wait_for(before + 1)
            assert len(come) > 1 or one.is_quiet(0.1)
            gone = len(shared.second.left)
            left = one.leave()
            return shared.second.wait_left(gone + 1)[-1].time - left

    for come in ((), (EARLY,), (EARLY, REST[:-60])):
        assert min(took(*come) for _ in range(3)) < 0.2
    records = shared.router.records(9, session=request.node.name)
    assert {record["status"] for record in records} == {"cancelled"}


@pytest.mark.slow
def test_when_the_client_leaves_the_rest_of_a_long_request_is_not_sent(shared, caller, reader):
    """To close the connection in the usual way would do that first."""
    caller.ask("reader", pad=20_000_000)
    connection, _ = reader.accept()
    with connection:
        connection.settimeout(BOUND)
        connection.recv(1000)
        left = caller.leave()
        shared.router.records(1, session=caller.session)
        with pytest.raises(ConnectionResetError):
            list(iter(lambda: connection.recv(1 << 20), b""))
        assert time.monotonic() - left < 2 * BOUND


def test_a_client_that_only_stops_sending_has_left(shared, caller, never):
    """No client of the Messages API closes one half and still reads."""
    shared.second.answer(sse(EARLY, REST[:-60], never))
    caller.ask("zai")
    caller.until(b"from-zai")
    caller.socket.shutdown(socket.SHUT_WR)
    shared.second.wait_left(1, BOUND)
    assert shared.router.records(1, session=caller.session)[0]["status"] == "cancelled"


# sending and reading slowly


@pytest.fixture
def serve(reader: socket.socket) -> Iterator[Callable[[float], None]]:
    """Starts to read a request piece by piece, with this pause between them, and answers it."""
    over, threads = threading.Event(), []

    def serve(pause: float) -> None:
        connection, _ = reader.accept()
        with connection, suppress(ConnectionError):
            head, _, body = connection.recv(65536).partition(b"\r\n\r\n")
            left = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]) - len(body)
            while left > 0 and not over.wait(pause):
                left -= len(connection.recv(65536))
            answer = message_sse("reader")
            connection.sendall(answer.head() + b"".join(map(answer.frame, answer.chunks)) + b"0\r\n\r\n")

    def start(pause: float) -> None:
        threads.append(threading.Thread(target=serve, args=(pause,)))
        threads[-1].start()

    yield start
    over.set()
    for thread in threads:
        thread.join()


@pytest.mark.slow
def test_a_long_request_to_a_slow_provider_is_not_taken_for_silence(caller, serve):
    """The time for an answer counts from when the request is sent."""
    serve(0.004)
    began = time.monotonic()
    caller.ask("reader", pad=20_000_000)
    assert caller.answer().headers["x-signalbox-attempts"] == "reader:200"
    assert time.monotonic() - began > 1


@pytest.mark.slow
def test_a_client_that_reads_slowly_is_no_silent_provider(shared, caller, named):
    pad = b": " + b"x" * 65536 + b"\n\n"
    shared.second.answer(sse(EARLY, REST[:-60], *[pad] * 150, REST[-60:]))
    caller.ask(named("quick"))
    caller.until(b"from-zai")
    threading.Event().wait(4 * LIMIT)  # the time in which it does not read
    caller.until(b"message_stop")
    caller.until(b"0\r\n\r\n")
    assert shared.router.records(1, session=caller.session)[0]["status"] == "success"


# many requests on one connection


def test_requests_of_one_http2_connection_fail_over_without_touching_each_other(
    multiplexed: Upstream2, shared: Shared, request: pytest.FixtureRequest
):
    """On both sides: of the client's connection and of the provider's."""
    multiplexed.asked.clear()
    before = multiplexed.resets

    def scripted(number: int, body: dict[str, object]) -> Answer:
        model = str(body["model"])
        return sse(BROKEN, *NOISE, cut="close") if model.endswith("odd") else message_sse(model)

    multiplexed.script = scripted
    names = [f"multi-{n}-{'odd' if n % 2 else 'even'}" for n in range(6)]
    with Caller2(shared.router, request.node.name) as client:
        numbers = [client.ask(name) for name in names]
        for name, number in zip(names, numbers, strict=True):
            told = "multi:stream_error anthropic:200" if name.endswith("odd") else "multi:200"
            answer = client.answer(number)
            assert answer.headers["x-signalbox-attempts"] == told
            assert answer.body == message_sse(name).body
    multiplexed.wait_reset(before + 3)
    assert len({connection for connection, _ in multiplexed.asked}) == 1
