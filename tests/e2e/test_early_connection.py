"""The connection to the provider is opened while the body of a request still arrives."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.answers import message_json
from tests.support.fake_provider import Upstream
from tests.support.raw_client import Caller
from tests.support.router_process import wait_until
from tests.support.tls import TlsUpstream, certify

DELAY = 0.5
"""Seconds that a connection takes, with its handshake."""
OPTIONS = ("--set", "ssl_insecure=true")


class Distant:
    """Passes connections on to a provider, each after DELAY seconds."""

    def __init__(self, provider: Upstream) -> None:
        self._to = provider.port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.accepted = 0
        self.ready = 0
        """Connections over which bytes may pass."""
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> "Distant":
        self._threads[0].start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.leave()
        for one in self._open:
            _shut(one)
        for thread in self._threads:
            thread.join(10)
        for one in self._open:
            one.close()

    def leave(self) -> None:
        """Take no more connections."""
        _shut(self._server)
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            self.accepted += 1
            far = socket.create_connection(("127.0.0.1", self._to))
            self._open += [near, far]
            for source, sink, pause in ((near, far, DELAY), (far, near, 0.0)):
                thread = threading.Thread(target=self._pass, args=(source, sink, pause))
                self._threads.append(thread)
                thread.start()

    def _pass(self, source: socket.socket, sink: socket.socket, pause: float) -> None:
        try:
            data = source.recv(65536)
            time.sleep(pause)
            self.ready += bool(pause)
            while data:
                sink.sendall(data)
                data = source.recv(65536)
        except OSError:
            pass
        for one in (source, sink):
            _shut(one)


def _shut(one: socket.socket) -> None:
    """Wakes a thread that waits for it, as closing does not."""
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[TlsUpstream]:
    with TlsUpstream(certify(tmp_path / "server.pem")) as one:
        one.answer(message_json("glm-4.7"))
        yield one


@pytest.fixture
def distant(provider: TlsUpstream) -> Iterator[Distant]:
    with Distant(provider) as one:
        yield one


@pytest.fixture
def router(start_router, upstream: Upstream, distant: Distant):
    upstream.answer(message_json("claude-opus-4-6"))
    rules = f"""
providers:
  far: {{url: "https://127.0.0.1:{distant.port}", key: zai-key-for-tests-0001}}
  near: {{url: "{upstream.url}", auth: client}}
rules:
  - {{match: "far*", to: far}}
  - {{match: "near*", to: near}}
"""
    return start_router(upstream.url, rules=rules, options=OPTIONS)


def request(model: str) -> bytes:
    return json.dumps({"model": model, "messages": [{"role": "user", "content": "x" * 5000}]}).encode()


@pytest.mark.slow
def test_a_slow_upload_hides_the_time_of_the_connection(router, distant: Distant) -> None:
    body = request("far-1")
    with Caller(router, "session-1") as caller:
        caller.ask("far-1", stream=False)
        assert caller.answer().status == 200
    with Caller(router, "session-1") as caller:
        caller.socket.sendall(caller.head(len(body)) + body[:2000])
        wait_until(lambda: distant.ready == 2, 10, lambda: "a connection before the body is in")
        caller.socket.sendall(body[2000:])
        sent = time.monotonic()
        assert caller.answer().status == 200
        assert time.monotonic() - sent < DELAY
    assert distant.accepted == 2  # the one that was opened early is the one that is used


@pytest.mark.slow
def test_nothing_is_sent_on_it_where_the_request_goes_elsewhere(
    router, distant: Distant, provider: TlsUpstream
) -> None:
    body = request("near-1")
    with Caller(router, "session-1") as caller:
        caller.ask("far-1", stream=False)
        assert caller.answer().status == 200
    with Caller(router, "session-1") as caller:
        caller.socket.sendall(caller.head(len(body)) + body[:2000])
        wait_until(lambda: distant.accepted == 2, 10, lambda: "a connection before the body is in")
        caller.socket.sendall(body[2000:])
        answer = caller.answer()
        assert (answer.status, answer.headers["x-signalbox-provider"]) == (200, "near")
    assert len(provider.requests) == 1


@pytest.mark.slow
def test_no_second_connection_is_opened_where_one_is_kept(router, distant: Distant) -> None:
    body = request("far-1")
    with Caller(router, "session-1") as caller:
        caller.ask("far-1", stream=False)
        assert caller.answer().status == 200
        caller.socket.sendall(caller.head(len(body)) + body[:2000])
        caller.socket.sendall(body[2000:])
        assert caller.answer().status == 200
    assert distant.accepted == 1


@pytest.mark.slow
def test_a_provider_that_is_gone_is_asked_again_once_the_body_is_in(
    router, distant: Distant, provider: TlsUpstream
) -> None:
    """What fails early is no attempt."""
    body = request("far-1")
    with Caller(router, "session-1") as caller:
        caller.ask("far-1", stream=False)
        assert caller.answer().status == 200
    distant.leave()
    with Caller(router, "session-1") as caller:
        caller.socket.sendall(caller.head(len(body)) + body[:2000])
        assert caller.is_quiet(0.3)
        caller.socket.sendall(body[2000:])
        answer = caller.answer()
        assert (answer.status, answer.headers["x-signalbox-attempts"]) == (502, "far:connect")
