"""HTTP/2 over TLS: a client of the router that asks several things at once, and a scripted provider."""

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import h2.config
import h2.connection
import h2.errors
import h2.events

from tests.support.answers import Answer
from tests.support.raw_client import LOGIN
from tests.support.router_process import Router
from tests.support.tls import serving, trusting


@dataclass
class Stream:
    """What came for one request."""

    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    state: str = "open"
    """`open`, `ended` or `reset`."""


class Caller2:
    """One connection to the router."""

    def __init__(self, router: Router, session: str) -> None:
        plain = socket.create_connection(("127.0.0.1", router.ports[0]), timeout=10)
        self.socket = trusting("h2").wrap_socket(plain, server_hostname="localhost")
        assert self.socket.selected_alpn_protocol() == "h2"
        self.session = session
        self.streams: dict[int, Stream] = {}
        self._connection = h2.connection.H2Connection()
        self._connection.initiate_connection()
        self._connection.increment_flow_control_window(1 << 30)
        self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()

    def ask(self, model: str) -> int:
        """The number of the stream."""
        number: int = self._connection.get_next_available_stream_id()
        body = json.dumps({"model": model, "stream": True, "messages": [{"role": "user", "content": "x"}]})
        fields = {
            ":method": "POST",
            ":scheme": "https",
            ":authority": "localhost",
            ":path": "/v1/messages",
            "authorization": LOGIN,
            "x-claude-code-session-id": self.session,
        }
        self.streams[number] = Stream()
        self._connection.send_headers(number, list(fields.items()))
        self._connection.send_data(number, body.encode(), end_stream=True)
        self._flush()
        return number

    def leave(self, number: int) -> None:
        """Give up this one stream."""
        self._connection.reset_stream(number, h2.errors.ErrorCodes.CANCEL)
        self._flush()

    def until(self, number: int, text: bytes) -> None:
        self._until(lambda: text in self.streams[number].body)

    def answer(self, number: int) -> Stream:
        self._until(lambda: self.streams[number].state != "open")
        return self.streams[number]

    def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            data = self.socket.recv(65536)
            assert data, "the router closed the connection"
            for event in self._connection.receive_data(data):
                self._take(event)
            self._flush()

    def _take(self, event: h2.events.Event) -> None:
        number = getattr(event, "stream_id", 0)
        if isinstance(event, h2.events.ResponseReceived):
            self.streams[number].headers = {k.decode(): v.decode() for k, v in event.headers}
        elif isinstance(event, h2.events.DataReceived):
            self.streams[number].body += event.data
            self._connection.acknowledge_received_data(event.flow_controlled_length, number)
        elif isinstance(event, h2.events.StreamEnded):
            self.streams[number].state = "ended"
        elif isinstance(event, h2.events.StreamReset):
            self.streams[number].state = "reset"

    def _flush(self) -> None:
        self.socket.sendall(self._connection.data_to_send())


type Script = Callable[[int, dict[str, Any]], Answer]
"""Gets the number of the request, from 0, and its body. Of the answer's chunks only bytes are sent; with a
`cut` the stream stays open."""


class Upstream2:
    """A provider that speaks HTTP/2 only."""

    def __init__(self, certificate: Path) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._server.getsockname()[1]}"
        self._tls = serving(certificate, "h2")
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._sockets: list[ssl.SSLSocket] = []
        self.script: Script
        self.asked: list[tuple[int, dict[str, Any]]] = []
        """(connection, body) of each request."""
        self.resets = 0
        self._reset = threading.Condition()

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.close()
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join(5)

    def wait_reset(self, count: int) -> None:
        with self._reset:
            assert self._reset.wait_for(lambda: self.resets >= count, 5)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                plain, _ = self._server.accept()
                number = len(self._sockets)
                self._sockets.append(self._tls.wrap_socket(plain, server_side=True))
                thread = threading.Thread(target=self._serve, args=(number, self._sockets[-1]))
                self._threads.append(thread)
                thread.start()

    def _serve(self, number: int, peer: ssl.SSLSocket) -> None:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        connection.initiate_connection()
        bodies: dict[int, bytes] = {}
        with peer, suppress(OSError):
            while data := peer.recv(65536):
                self._answer(number, connection, connection.receive_data(data), bodies)
                peer.sendall(connection.data_to_send())

    def _answer(
        self,
        number: int,
        connection: h2.connection.H2Connection,
        events: Iterable[h2.events.Event],
        bodies: dict[int, bytes],
    ) -> None:
        for event in events:
            if isinstance(event, h2.events.DataReceived):
                bodies[event.stream_id] = bodies.get(event.stream_id, b"") + event.data
                connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamReset):
                with self._reset:
                    self.resets += 1
                    self._reset.notify_all()
            elif isinstance(event, h2.events.StreamEnded):
                body = json.loads(bodies[event.stream_id])
                answer = self.script(len(self.asked), body)
                self.asked.append((number, body))
                if answer.cut == "reset" and not answer.chunks:
                    connection.reset_stream(event.stream_id, h2.errors.ErrorCodes.REFUSED_STREAM)
                    continue
                headers = [(":status", str(answer.status)), *((k.lower(), v) for k, v in answer.headers)]
                connection.send_headers(event.stream_id, headers)
                connection.send_data(event.stream_id, answer.body, end_stream=not answer.cut)
