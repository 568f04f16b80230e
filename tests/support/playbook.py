"""Plays client connections through the router's HTTP layer: bytes and replies in, commands out.

There is no socket, no process and no event loop: what mitmproxy's server would do with a command (open a
connection, run a hook, wake up) is done by the test, and time passes only where a test lets it.

A test reads as a dialogue: `play.asks("model")`, `play.answers(error_json(500, "api_error"))`,
`play.answers(message_sse("glm"))`, `assert play.got.status == 200`. What the router sent upstream is in
`play.asked`, what the client was sent since its last request in `play.got`. Where it does not matter when an
upstream answers, it is scripted: `up = router.provider("up")`, `up.answer(message_json("glm"))`.
"""

import asyncio
import inspect
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import pytest
from mitmproxy.addons.block import Block
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.connection import Client, Connection, ConnectionState, Server
from mitmproxy.master import Master
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import HTTPMode
from mitmproxy.proxy.mode_specs import ProxyMode
from mitmproxy.test import taddons

from signalbox.app import App
from signalbox.proxy.addon import Hooks
from signalbox.proxy.layer import RouterLayer
from tests.support.answers import Answer
from tests.support.fake_provider import usual
from tests.support.played_wire import (
    END,
    LOGIN,
    Asked,
    Got,
    Http1,
    Http2,
    parse,
    raw_request,
    request,
    text_of,
    user,
)

type Script = Answer | Callable[[Any], Answer]

REVERSE = ProxyMode.parse("reverse:http://upstream.invalid@127.0.0.1:8082")
WAKE_LATE = 0.05
"""Seconds by which a wake-up is played later than it was asked for."""
DAY = 86_400.0

_real_time, _real_sleep, _real_clock = time.time, time.sleep, time.monotonic


class Clock:
    """Stands for `time.monotonic` and `time.time`."""

    def __init__(self) -> None:
        self.now = _real_clock()
        self.failure: Exception | None = None
        """Raised at the next look at `monotonic`, once."""
        self._ahead = _real_time() - self.now

    def monotonic(self) -> float:
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure
        return self.now

    def time(self) -> float:
        return self.now + self._ahead


class Provider:
    """A provider that answers by a script as soon as it is asked; unscripted as Anthropic would."""

    def __init__(self) -> None:
        self.requests: list[Asked] = []
        self._script: list[Script] = [usual]

    def answer(self, *script: Script) -> None:
        """Answer the coming requests with these, one each; the last one stays."""
        self._script = list(script)

    def next_answer(self, asked: Asked) -> Answer:
        self.requests.append(asked)
        script = self._script.pop(0) if len(self._script) > 1 else self._script[0]
        return script(asked) if callable(script) else script


class Playbook:
    """One client, connected to one router. The hosts of its providers end in `.invalid`."""

    def __init__(self, router: "PlayedRouter", context: Context) -> None:
        self.router = router
        self.client = context.client
        self.session: str | None = f"session-{next(_numbers)}"
        self.hooks: list[str] = []
        self.opening: list[commands.OpenConnection] = []
        """Connections that are to be opened, the oldest first."""
        self.closed: list[Connection] = []
        self.aborted: list[Connection] = []
        """Connections that were reset, with what was still to be sent there."""
        self.asked: list[Asked] = []
        self.flows: list[Any] = []
        self.unsent: dict[Connection, int] = {}
        """Bytes that wait to be taken by a peer, by a test."""
        self.others: dict[int, Got] = {}
        """What a client that speaks HTTP/2 was sent, by the number of the request."""
        self._heard = b""
        self._served = 0
        """How many of the requests upstreams have been offered to a script."""
        self._sent: dict[Connection, bytes] = {}
        self._peers: dict[Connection, Http1 | Http2] = {}
        self._wakeups: list[tuple[float, commands.RequestWakeup]] = []
        self._events: deque[events.Event] = deque()
        self._transport(self.client)
        self._layer = RouterLayer(context, HTTPMode.transparent)
        self._layer.prepare(router.app)
        self._h2 = h2.connection.H2Connection() if self.client.alpn == b"h2" else None
        if self._h2 is not None:
            self._h2.initiate_connection()
            self._h2.increment_flow_control_window(1 << 30)
        self._play(events.Start())
        if self._h2 is not None:
            self.client_sends(self._h2.data_to_send())

    # what the client does

    def asks(
        self,
        model: str = "claude-sonnet-4-5",
        *,
        stream: bool = True,
        path: str = "/v1/messages",
        headers: dict[str, str] | None = None,
        **fields: Any,
    ) -> int:
        """A request for a messages path; gives its number, which counts in HTTP/2."""
        body = {"model": model, "max_tokens": 64, "stream": stream, "messages": [user("hi")]} | fields
        more = {"x-claude-code-session-id": self.session or ""} | (headers or {})
        data = json.dumps(body).encode()
        self.hears_anew()
        if self._h2 is None:
            self.client_sends(request(data, path, **more))
            return 0
        number = self._h2.get_next_available_stream_id()
        pseudo = {":method": "POST", ":scheme": "http", ":authority": "localhost", ":path": path}
        self.others[number] = Got()
        self._h2.send_headers(number, list((pseudo | {"x-api-key": LOGIN} | more).items()))
        self._h2.send_data(number, data, end_stream=True)
        self.client_sends(self._h2.data_to_send())
        return number

    def ask(self, model: str, *, stream: bool = False, **fields: Any) -> Got:
        """What a client gets whose providers are scripted."""
        self.asks(model, stream=stream, **fields)
        return self.got

    def fetch(self, line: str, body: bytes = b"", *lines: str, **headers: str) -> Got:
        """What a request of HTTP/1 gets: `play.fetch("GET /health", Host="router.lan")`."""
        self.hears_anew()
        self.client_sends(raw_request(line, body, *lines, **headers))
        return self.got

    def hears_anew(self) -> None:
        """From here on `got` is about the next answer."""
        self._heard = b""

    def client_sends(self, data: bytes) -> None:
        self._play(events.DataReceived(self.client, data))
        self.serve()

    def client_leaves(self, number: int = 0) -> None:
        """Close the connection, or give up one request of an HTTP/2 connection."""
        if number and self._h2 is not None:
            self._h2.reset_stream(number, h2.errors.ErrorCodes.CANCEL)
            self.client_sends(self._h2.data_to_send())
            return
        self.client.state = ConnectionState.CLOSED
        self._play(events.ConnectionClosed(self.client))

    # what upstreams do

    def connects(self, error: str | None = None, *, alpn: bytes | None = None) -> Server:
        """The oldest connection that is being opened comes about, or fails."""
        command = self.opening.pop(0)
        server = command.connection
        assert isinstance(server, Server)
        server.timestamp_start = time.time()
        if error is None:
            server.state = ConnectionState.OPEN
            server.timestamp_tcp_setup = server.timestamp_start
            server.alpn = alpn
            peer = self._peers[server] = Http2() if alpn == b"h2" else Http1()
            self._transport(server)
        else:
            server.error = error
        self._play(events.OpenConnectionCompleted(command, error))
        if error is None and isinstance(peer, Http2):
            self.sends(server, peer.h2.data_to_send())
        return server

    def refuses(self) -> None:
        """The oldest connection that is being opened is refused."""
        self.connects("[Errno 111] Connection refused")

    def answers(self, answer: Answer, asked: Asked | None = None, *, alpn: bytes | None = None) -> Asked:
        """The upstream that was asked last answers; first the connection to it comes about.

        Of the answer's chunks, those before the first event of the test are sent; pauses let time pass.
        """
        while asked is None and self.opening:
            self.connects(alpn=alpn)
        asked = asked or self.asked[-1]
        peer = self._peers[asked.server]
        if isinstance(peer, Http2):
            self._answers_by_http2(peer, answer, asked)
            return asked
        data = b"" if answer.framing == "raw" else answer.head()
        for chunk in answer.chunks:
            if isinstance(chunk, threading.Event):
                self.sends(asked.server, data)
                return asked
            if isinstance(chunk, float):
                self.sends(asked.server, data)
                self.passes(chunk)
                data = b""
            else:
                data += answer.frame(chunk)
        ends = answer.framing == "chunked" and answer.cut is None
        self.sends(asked.server, data + (END if ends else b""))
        if answer.cut is not None or answer.framing == "close":
            self.closes(asked.server)
        return asked

    def _answers_by_http2(self, peer: Http2, answer: Answer, asked: Asked) -> None:
        if answer.cut == "reset":
            peer.h2.reset_stream(asked.stream, h2.errors.ErrorCodes.REFUSED_STREAM)
        else:
            fields = [(name.lower(), value) for name, value in answer.headers]
            peer.h2.send_headers(asked.stream, [(":status", str(answer.status)), *fields])
            peer.h2.send_data(asked.stream, answer.body, end_stream=answer.cut is None)
        self.sends(asked.server, peer.h2.data_to_send())

    def resets(self, server: Server) -> list[int]:
        """Numbers of the requests that were given up on this HTTP/2 connection."""
        peer = self._peers[server]
        assert isinstance(peer, Http2)
        return peer.resets

    def serve(self) -> None:
        """What scripted upstreams do by themselves."""
        scripts = self.router.providers
        while True:
            if self.opening and self.goes_to()[0] in scripts:
                self.connects()
            elif self._served < len(self.asked):
                asked = self.asked[self._served]
                self._served += 1
                if (provider := scripts.get(asked.host)) is not None:
                    self.answers(provider.next_answer(asked), asked)
            else:
                return

    def sends(self, server: Server, data: bytes) -> None:
        if data and server.state is not ConnectionState.CLOSED:
            self._play(events.DataReceived(server, data))

    def closes(self, server: Server) -> None:
        if server.state is not ConnectionState.CLOSED:
            server.state = ConnectionState.CLOSED
            self._play(events.ConnectionClosed(server))

    def passes(self, seconds: float) -> None:
        """Time passes, with every wake-up that comes in it."""
        clock = self.router.clock
        end = clock.now + seconds
        while due := [one for one in self._wakeups if one[0] <= end]:
            at, command = min(due, key=lambda one: one[0])
            self._wakeups.remove((at, command))
            clock.now = max(clock.now, at + WAKE_LATE)
            self._play(events.Wakeup(command))
            self.serve()
        clock.now = max(clock.now, end)

    # what came of it

    def sent_to(self, peer: Connection) -> bytes:
        """What it was sent since this was asked last."""
        return self._sent.pop(peer, b"")

    @property
    def answer(self) -> bytes:
        """The bytes that the client was sent since this was asked last."""
        return self.sent_to(self.client)

    @property
    def got(self) -> Got:
        """What the client was sent for its last request (of HTTP/1)."""
        return parse(self._heard, is_closed=self.client.state is ConnectionState.CLOSED)

    @property
    def attempts(self) -> str:
        """As the last answer's header tells them."""
        return str(self.flows[-1].response.headers["x-signalbox-attempts"])

    @property
    def clock(self) -> Clock:
        return self.router.clock

    @property
    def next_wakeup(self) -> float:
        """When the layer is woken up next, on the clock."""
        return min(at for at, _ in self._wakeups)

    @property
    def tcp_timeout(self) -> float:
        """Seconds after which mitmproxy closes a connection on which nothing at all happens."""
        return float(self._layer.context.options.tcp_timeout)

    @property
    def streams(self) -> int:
        return len(self._layer.streams)

    @property
    def kept_connections(self) -> int:
        """Upstream connections that the layer remembers."""
        return len(self._layer.connections) - 1

    def goes_to(self) -> list[str]:
        """Providers to which connections are being opened."""
        addresses = [one.connection.address for one in self.opening]
        return [address[0].removesuffix(".invalid") for address in addresses if address is not None]

    def records(self, n: int) -> list[dict[str, Any]]:
        """The lines of the request log for this client, once there are at least `n`."""
        return self.router.records(n, self.session)

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
                if command.name == "requestheaders":
                    self.flows.append(command.args()[0])
                self.router.run_hook(command)
                if command.blocking:
                    self._events.append(events.HookCompleted(command))
            case commands.OpenConnection():
                self.opening.append(command)
            case commands.SendData():
                self._take(command.connection, command.data)
            case commands.CloseConnection():
                self._close(command.connection)
            case commands.RequestWakeup():
                self._wakeups.append((self.router.clock.now + command.delay, command))

    def _close(self, connection: Connection) -> None:
        """As mitmproxy does: whether it was open or being opened, its end is told."""
        self.closed.append(connection)
        was_open, connection.state = connection.state, ConnectionState.CLOSED
        pending = [one for one in self.opening if one.connection is connection]
        for command in pending:
            self.opening.remove(command)
            connection.error = "connection cancelled"
            self._events.append(events.OpenConnectionCompleted(command, connection.error))
        if was_open is not ConnectionState.CLOSED and not pending:
            self._events.append(events.ConnectionClosed(connection))

    def _take(self, connection: Connection, data: bytes) -> None:
        self._sent[connection] = self._sent.get(connection, b"") + data
        if connection is not self.client:
            assert isinstance(connection, Server)
            self.asked += self._peers[connection].received(connection, data)
        elif self._h2 is None:
            self._heard += data
        else:
            for event in self._h2.receive_data(data):
                self._take_http2(event)

    def _take_http2(self, event: h2.events.Event) -> None:
        got = self.others.get(getattr(event, "stream_id", 0) or 0)
        match event:
            case h2.events.ResponseReceived() if got:
                got.headers = {text_of(k): text_of(v) for k, v in event.headers or []}
                got.status, got.state = int(got.headers.pop(":status")), "open"
            case h2.events.DataReceived() if got:
                got.body += event.data or b""
            case h2.events.StreamEnded() if got:
                got.state = "ended"
            case h2.events.StreamReset() if got:
                got.state = "cut"

    def _transport(self, connection: Connection) -> None:
        """What mitmproxy's server keeps of a connection, as far as the router looks at it."""

        def abort() -> None:
            self.aborted.append(connection)
            self._events.append(events.ConnectionClosed(connection))
            connection.state = ConnectionState.CLOSED

        transport = SimpleNamespace(
            abort=abort,
            get_extra_info=lambda name: SimpleNamespace(setsockopt=lambda *args: None),
            get_write_buffer_size=lambda: self.unsent.get(connection, 0),
        )
        self.router.transports(self.client)[connection] = SimpleNamespace(
            writer=SimpleNamespace(transport=transport)
        )


class PlayedRouter:
    """A router to which clients connect."""

    def __init__(self, folder: Path, rules: str, clock: Clock, master: Master, server: Any) -> None:
        (folder / "rules.yaml").write_text(rules)
        (folder / "state").mkdir(mode=0o700, exist_ok=True)
        self.clock = clock
        self.providers: dict[str, Provider] = {}
        self._broken: tuple[str, Exception] | None = None
        self.state = folder / "state"
        self._options = master.options
        self._connections = server.connections
        self.app = App(master)
        self.app.open(str(folder / "rules.yaml"), str(self.state))
        self._hooks = Hooks(self.app)

    def connect(self, alpn: bytes | None = None) -> Playbook:
        """A client that has just connected, a day after the last one: every cooldown is over."""
        self.clock.now += DAY
        client = Client(
            peername=("127.0.0.1", 50000),
            sockname=("127.0.0.1", 8082),
            timestamp_start=time.time(),
            state=ConnectionState.OPEN,
            proxy_mode=REVERSE,
        )
        client.alpn = alpn
        context = Context(client, self._options)
        context.server.address = ("upstream.invalid", 80)
        return Playbook(self, context)

    def provider(self, name: str) -> Provider:
        """The provider at `http://NAME.invalid` is scripted from now on, and has not been asked yet."""
        self.providers[name] = Provider()
        return self.providers[name]

    def break_clock(self, failure: Exception, hook: str = "") -> None:
        """The next look at the clock raises this, or the first one within the next hook of this name."""
        if hook:
            self._broken = (hook, failure)
        else:
            self.clock.failure = failure

    def run_hook(self, hook: commands.StartHook) -> None:
        if self._broken is not None and self._broken[0] == hook.name:
            (_, self.clock.failure), self._broken = self._broken, None
        stores = self.app.stores
        match hook.name:  # as `router.py` has them
            case "signalbox_refresh":
                result = stores.refresh(self.app.exchanges[hook.args()[0]].rules)
            case "signalbox_learned":
                result = stores.provenance.written()
            case name:
                handler = getattr(self._hooks, name, None)
                result = handler(*hook.args()) if handler is not None else None
        if inspect.isawaitable(result):
            asyncio.run(_finished(result))

    def transports(self, client: Client) -> dict[Connection, Any]:
        handler = self._connections.setdefault(client.id, SimpleNamespace(transports={}, max_conns={}))
        found: dict[Connection, Any] = handler.transports
        return found

    @property
    def health_page(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._visitor().fetch("GET /health").body)
        return found

    def health(self, provider: str) -> dict[str, Any]:
        """What the health page says of a provider."""
        found: dict[str, Any] = self.health_page["providers"][provider]
        return found

    def _visitor(self) -> Playbook:
        before = self.clock.now
        play = self.connect()
        self.clock.now = before
        return play

    def records(self, n: int, session: str | None) -> list[dict[str, Any]]:
        """The lines of the request log for this session, once there are at least `n`."""
        file = self.state / "requests.jsonl"

        def found() -> list[dict[str, Any]]:
            lines = file.read_text().splitlines(keepends=True) if file.exists() else []
            rows = [json.loads(line) for line in lines if line.endswith("\n")]
            return [row for row in rows if row["session"] == session]

        eventually(lambda: len(found()) >= n, lambda: f"{n} records of {session}; there are {found()}")
        return found()

    def close(self) -> None:
        self.app.close()


@contextmanager
def played(folder: Path, rules: str) -> Iterator[PlayedRouter]:
    """A router with these rules. Time passes only as a test says, for all of it."""
    clock = Clock()
    server = Proxyserver()
    with pytest.MonkeyPatch.context() as patch, taddons.context(Block(), server) as mitmproxy:
        patch.setattr(time, "monotonic", clock.monotonic)
        patch.setattr(time, "time", clock.time)
        router = PlayedRouter(folder, rules, clock, mitmproxy.master, server)
        try:
            yield router
        finally:
            router.close()
            mitmproxy.master._legacy_log_events.uninstall()  # it would log to a loop that is closed


async def _finished(work: Any) -> Any:
    return await work


_numbers = count()


def eventually(holds: Callable[[], object], what: Callable[[], str]) -> None:
    """Wait until `holds`, for what threads do beside a playbook: five seconds of the real clock at most."""
    ends = _real_clock() + 5
    while not holds():
        assert _real_clock() < ends, what()
        _real_sleep(0.005)
