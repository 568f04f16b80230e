"""Plays a client connection through the router's HTTP layer: bytes and replies in, commands out.

There is no socket, no process and no event loop: what mitmproxy's server would do with a command (open a
connection, run a hook, wake up) is done by the test, and time passes only where a test lets it.
"""

import json
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.connection import Client, Connection, ConnectionState, Server
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import HTTPMode
from mitmproxy.proxy.mode_specs import ProxyMode
from mitmproxy.test import taddons

from signalbox.gateway.gateway import Gateway
from signalbox.proxy.layers import RouterLayer

REVERSE = ProxyMode.parse("reverse:http://upstream.invalid@127.0.0.1:8082")
WAKE_LATE = 0.05
"""Seconds by which a wake-up is played later than it was asked for."""


class Clock:
    """Stands for `time.monotonic`."""

    def __init__(self) -> None:
        self.now = time.monotonic()

    def __call__(self) -> float:
        return self.now


class Playbook:
    """One client, connected to one router. Names of upstreams are `host:port`."""

    def __init__(self, gateway: Gateway, context: Context, clock: Clock) -> None:
        self.gateway = gateway
        self.client = context.client
        self.clock = clock
        self.hooks: list[str] = []
        self.opening: list[commands.OpenConnection] = []
        """Connections that are to be opened, the oldest first."""
        self.closed: list[Connection] = []
        self.flows: list[Any] = []
        self._sent: dict[Connection, bytes] = {}
        self._wakeups: list[tuple[float, commands.RequestWakeup]] = []
        self._events: deque[events.Event] = deque()
        self._layer = RouterLayer(context, HTTPMode.transparent)
        self._play(events.Start())

    # what the client does

    def asks(self, model: str = "claude-sonnet-4-5", *, stream: bool = True, **fields: Any) -> None:
        """A request for the messages path."""
        body = {"model": model, "max_tokens": 64, "stream": stream, "messages": [user("hi")]} | fields
        self.client_sends(request(json.dumps(body).encode()))

    def client_sends(self, data: bytes) -> None:
        self._play(events.DataReceived(self.client, data))

    def client_leaves(self) -> None:
        self.client.state = ConnectionState.CLOSED
        self._play(events.ConnectionClosed(self.client))

    # what upstreams do

    def connects(self, error: str | None = None) -> Server:
        """The oldest connection that is being opened comes about, or fails."""
        command = self.opening.pop(0)
        server = command.connection
        assert isinstance(server, Server)
        server.timestamp_start = time.time()
        if error is None:
            server.state = ConnectionState.OPEN
            server.timestamp_tcp_setup = server.timestamp_start
        else:
            server.error = error
        self._play(events.OpenConnectionCompleted(command, error))
        return server

    def sends(self, server: Server, data: bytes) -> None:
        self._play(events.DataReceived(server, data))

    def closes(self, server: Server) -> None:
        server.state = ConnectionState.CLOSED
        self._play(events.ConnectionClosed(server))

    def passes(self, seconds: float) -> None:
        """Time passes, with every wake-up that comes in it."""
        end = self.clock.now + seconds
        while due := [one for one in self._wakeups if one[0] <= end]:
            at, command = min(due, key=lambda one: one[0])
            self._wakeups.remove((at, command))
            self.clock.now = max(self.clock.now, at + WAKE_LATE)
            self._play(events.Wakeup(command))
        self.clock.now = max(self.clock.now, end)

    # what came of it

    def sent_to(self, peer: Connection) -> bytes:
        """What it was sent since this was asked last."""
        return self._sent.pop(peer, b"")

    @property
    def answer(self) -> bytes:
        """What the client was sent since this was asked last."""
        return self.sent_to(self.client)

    @property
    def streams(self) -> int:
        return len(self._layer.streams)

    def _play(self, event: events.Event) -> None:
        """Replies to commands come in turns of their own, as from mitmproxy's tasks."""
        self._events.append(event)
        while self._events:
            for command in self._layer.handle_event(self._events.popleft()):
                self._do(command)

    def _do(self, command: commands.Command) -> None:
        match command:
            case commands.StartHook():
                self.hooks.append(command.name)
                if handler := getattr(self.gateway, command.name, None):
                    handler(*command.args())
                if command.name == "requestheaders":
                    self.flows.append(command.args()[0])
                if command.blocking:
                    self._events.append(events.HookCompleted(command))
            case commands.OpenConnection():
                self.opening.append(command)
            case commands.SendData():
                self._sent[command.connection] = self._sent.get(command.connection, b"") + command.data
            case commands.CloseConnection():
                self.closed.append(command.connection)
                command.connection.state = ConnectionState.CLOSED
            case commands.RequestWakeup():
                self._wakeups.append((self.clock.now + command.delay, command))


@contextmanager
def router(folder: Path, rules: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Playbook]:
    """A router with these rules, and a client that has just connected."""
    (folder / "rules.yaml").write_text(rules)
    (folder / "state").mkdir()
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    with taddons.context(Proxyserver()) as mitmproxy:
        gateway = Gateway(folder / "rules.yaml", folder / "state")
        gateway.start()
        client = Client(
            peername=("127.0.0.1", 50000),
            sockname=("127.0.0.1", 8082),
            timestamp_start=time.time(),
            state=ConnectionState.OPEN,
            proxy_mode=REVERSE,
        )
        context = Context(client, mitmproxy.options)
        context.server.address = ("upstream.invalid", 80)
        try:
            yield Playbook(gateway, context, clock)
        finally:
            gateway.done()


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def request(body: bytes, path: str = "/v1/messages") -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:8082\r\nx-api-key: sk-ant-fake-caller\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode() + body


def response(status: int, body: bytes = b"", **headers: str) -> bytes:
    """A whole answer with a length."""
    fields = {"content-type": "application/json", "content-length": str(len(body))} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} Status\r\n{head}\r\n".encode() + body


STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(name: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), json.dumps({"type": name} | fields).encode())


START = event(
    "message_start",
    message={
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [],
        "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 3, "output_tokens": 1},
    },
)  # fmt: skip
BLOCK = event("content_block_start", index=0, content_block={"type": "text", "text": ""})
DELTA = event("content_block_delta", index=0, delta={"type": "text_delta", "text": "Hello"})
STOP = (
    event("content_block_stop", index=0)
    + event(
        "message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": 2}
    )
    + event("message_stop")
)


def error(type: str, message: str) -> bytes:
    return json.dumps({"type": "error", "error": {"type": type, "message": message}}).encode()
