"""mitmproxy's HTTP layer, with our streams in it, a timer for them, and coalesced sends."""

import logging
import time
from collections.abc import Iterable, Iterator
from math import inf
from typing import TYPE_CHECKING

from mitmproxy.connection import Connection, Server
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.commands import Command, SendData
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import (
    DropStream,
    GetHttpConnection,
    HttpLayer,
    ReceiveHttp,
    RegisterHttpConnection,
    RequestHeaders,
    SendHttp,
)

from signalbox.errors import log_error
from signalbox.proxy import http1, outbound, quick_http1, upstream
from signalbox.proxy.early_connection import OpenEarly
from signalbox.proxy.stream import RoutedStream, SendNow, Tick
from signalbox.proxy.upstream import Commands

if TYPE_CHECKING:
    from signalbox.app import App

log = logging.getLogger("signalbox")

LARGE_SEND = 64 * 1024
"""Bytes beyond which copying them together costs more than it saves."""
SHORTEST = 0.02
"""Seconds between two looks at the clock at the least."""


def take_over(top: layer.Layer | None, app: "App") -> None:
    """Put our HTTP layer in the place of mitmproxy's, in a stack that has not been started yet.

    The layer changes its class: others in the stack hold it already, and another one would be a second HTTP
    layer in the context.
    """
    while top is not None:
        if type(top) is HttpLayer:
            top.__class__ = RouterLayer
            assert isinstance(top, RouterLayer)
            top.prepare(app)
            return
        top = getattr(top, "child_layer", None)


class RouterLayer(HttpLayer):
    """One client connection.

    A stream says in `wakes_at` when it wants a `Tick`. mitmproxy's wake-ups cannot be taken back and hold
    the stream that asked for them (mitmproxy.md, 27), so the layer asks, where none comes before the earliest
    deadline.
    """

    app: "App"
    _client: http1.ClientHttp1 | None
    """The client's connection, where it is HTTP/1."""
    _alarms: dict[commands.Command, float]
    """Wake-ups on their way, and when they come."""
    _closed: set[Connection]
    """Upstream connections that are over but not forgotten yet."""
    _longest_wait: float
    """Seconds between two wake-ups at the most. Read once: an option is copied whenever it is asked for."""
    _activity: dict[Connection, float]
    """When something last came on each upstream connection, by the wall clock, which goes on while a machine
    sleeps. Of one through a proxy this is the connection to that proxy."""

    def prepare(self, app: "App") -> None:
        """Stands for `__init__`."""
        self.app, self._client = app, None
        self._alarms, self._closed, self._activity = {}, set(), {}
        self._adopt = http1.adopt if app.is_plain else quick_http1.adopt
        self._longest_wait = self.context.options.tcp_timeout / 2

    def make_stream(self, stream_id: int) -> Commands[None]:
        self.streams[stream_id] = stream = RoutedStream(_forked(self.context), stream_id, self.app)
        yield from self.event_to_child(stream, events.Start())

    def get_connection(self, command: GetHttpConnection, *, reuse: bool = True) -> Commands[None]:
        yield from self._close_stale(self.command_sources.get(command))
        if isinstance(command, OpenEarly) and self._may_answer(command):
            return
        for opening in super().get_connection(command, reuse=reuse):
            if isinstance(opening, commands.OpenConnection):
                outbound.adopt(self.connections.get(opening.connection))
            yield opening

    def _may_answer(self, command: GetHttpConnection) -> bool:
        """Whether there is a connection for it, or will be."""
        return any(
            command.connection_spec_matches(connection)
            and (connection in self.waiting_for_establishment or connection.connected)
            for connection in self.connections
        )

    def _close_stale(self, asker: layer.Layer | None) -> Commands[None]:
        """What was silent for long is not used again, unless another stream is waiting on it."""
        busy = {stream.context.server for stream in self.streams.values() if stream is not asker}
        for connection in self.connections.keys() - busy:
            if connection.connected and self._is_stale(connection):
                yield commands.CloseConnection(outbound.carrier(self, connection))

    def _is_stale(self, connection: Connection) -> bool:
        if outbound.is_carrier(self, connection):
            return False  # that is asked of the connection that it carries
        last = self._activity.get(outbound.carrier(self, connection))
        return last is not None and time.time() - last >= self.app.keepalive_expiry

    def register_connection(self, command: RegisterHttpConnection) -> Commands[None]:
        """A connection was opened or has failed; its stream may be gone by then."""
        connection = command.connection
        if isinstance(connection, Server):
            self._activity[outbound.carrier(self, connection)] = time.time()
            if command.err is None and self.app.leads_back(connection):
                command.err = connection.error = outbound.LOOP
                yield commands.CloseConnection(connection)
        if (waiting := self.waiting_for_establishment.get(connection)) is not None:
            waiting[:] = [one for one in waiting if not isinstance(one, OpenEarly)]
        self._adopt(upstream.http_client(self, command.connection))
        if command.connection in self.waiting_for_establishment:
            yield from super().register_connection(command)
        elif upstream.never_opened(self, command.connection):
            upstream.forget(self, command.connection)

    def handle_event(self, event: events.Event) -> Commands[None]:
        """No command of this layer itself waits for a reply, so that it is never paused."""
        return self._handle_event(event) if self.debug is None else super().handle_event(event)

    def _handle_event(self, event: events.Event) -> Commands[None]:
        child: layer.Layer | None = None
        if type(event) is events.DataReceived:
            event.data = bytes(event.data)  # of a tunnel it may be a bytearray
            if event.connection in self._activity:
                self._activity[event.connection] = time.time()
            child = self.connections.get(event.connection)
        try:
            if child is not None:
                yield from coalesced(self.event_to_child(child, event))
            elif isinstance(event, events.Wakeup) and event.command not in self.command_sources:
                self._alarms.pop(event.command, None)
                yield from coalesced(self._tick())
            else:
                yield from coalesced(super()._handle_event(event))
            if isinstance(event, events.Start):
                client = self.connections[self.context.client]
                self._adopt(client)
                self._client = client if isinstance(client, http1.ClientHttp1) else None
            while self._client is not None and self._client.has_next:
                yield from coalesced(self.event_to_child(self._client, self._client.read_next()))
            yield from self._set_alarm()
        except Exception as error:
            log_error("the proxy, which closes the connection", error)
            yield commands.CloseConnection(self.context.client)
        if isinstance(event, events.ConnectionClosed) and event.connection is not self.context.client:
            self._closed.add(event.connection)
        if self._closed:
            self._forget_closed()

    def event_to_child(self, child: layer.Layer, event: events.Event) -> Commands[None]:
        """mitmproxy's, with one generator for all layers that an event passes. In mitmproxy's each command
        goes through two for each layer that it has passed."""
        if self.app.is_plain:
            yield from super().event_to_child(child, event)
            return
        waiting: list[tuple[layer.Layer, Iterator[Command]]] = []
        steps: Iterator[Command] = iter(child.handle_event(event))
        while True:
            command = next(steps, None)
            if command is None:
                if not waiting:
                    return
                child, steps = waiting.pop()
                continue
            kind = type(command)
            if kind is SendData:
                yield command
            elif isinstance(command, SendHttp):
                waiting.append((child, steps))
                child = self.connections[command.connection]
                steps = iter(child.handle_event(command.event))
            elif isinstance(command, ReceiveHttp):
                if isinstance(command.event, RequestHeaders):
                    yield from self.make_stream(command.event.stream_id)
                # Of one that is over there may still come something.
                if (stream := self.streams.get(command.event.stream_id)) is not None:
                    waiting.append((child, steps))
                    child, steps = stream, iter(stream.handle_event(command.event))
            elif isinstance(command, DropStream):
                self.streams.pop(command.stream_id, None)
            else:
                if command.blocking or isinstance(command, commands.RequestWakeup):
                    self.command_sources[command] = child
                if isinstance(command, GetHttpConnection):
                    yield from self.get_connection(command)
                elif isinstance(command, RegisterHttpConnection):
                    yield from self.register_connection(command)
                else:
                    if isinstance(command, commands.OpenConnection):
                        self.connections[command.connection] = child
                    yield command

    def _tick(self) -> Commands[None]:
        now = time.monotonic()
        for stream in self._waking():
            if stream.wakes_at <= now:
                yield from self.event_to_child(stream, Tick(now))

    def _waking(self) -> list[RoutedStream]:
        return [stream for stream in self.streams.values() if isinstance(stream, RoutedStream)]

    def _set_alarm(self) -> Commands[None]:
        """For the earliest deadline, and often enough meanwhile: mitmproxy closes a client on whose
        connection nothing at all happens for `tcp_timeout` seconds (mitmproxy.md, 28)."""
        wanted = inf
        for stream in self.streams.values():
            if isinstance(stream, RoutedStream) and stream.wakes_at < wanted:
                wanted = stream.wakes_at
        if wanted == inf or (self._alarms and min(self._alarms.values()) <= wanted):
            return
        now = time.monotonic()
        wanted = min(wanted, now + self._longest_wait)
        alarm = commands.RequestWakeup(max(wanted - now, SHORTEST))
        self._alarms[alarm] = wanted
        yield alarm

    def _forget_closed(self) -> None:
        """mitmproxy keeps upstream connections, with what was last sent there, as long as the client's."""
        for connection in [c for c in self._closed if not self._is_used(c)]:
            self._closed.discard(connection)
            self._activity.pop(connection, None)
            upstream.forget(self, connection)

    def _is_used(self, connection: Connection) -> bool:
        servers = (stream.context.server for stream in self.streams.values())
        return any(outbound.carrier(self, server) is connection for server in servers)


def _forked(context: Context) -> Context:
    """As `Context.fork`, which makes a server with an id of its own in between, for nothing."""
    made = Context.__new__(Context)
    vars(made).update(vars(context), layers=context.layers.copy())
    return made


# sends


def coalesced(commands: Iterable[Command]) -> Iterator[Command]:
    """The commands in order, with consecutive sends to one peer put together.

    mitmproxy sends the head of a message and each piece of its body by themselves: each is a call of the
    system, and often a packet. Nothing is sent later than it would be.
    """
    waiting: SendData | None = None
    for command in commands:
        if type(command) is SendNow:
            if waiting is not None:
                yield waiting
                waiting = None
            continue
        if waiting is not None and isinstance(command, SendData) and _go_together(waiting, command):
            waiting = SendData(waiting.connection, waiting.data + command.data)
            continue
        if waiting is not None:
            yield waiting
            waiting = None
        if isinstance(command, SendData):
            waiting = command
        else:
            yield command
    if waiting is not None:
        yield waiting


def _go_together(one: SendData, other: SendData) -> bool:
    return one.connection is other.connection and len(one.data) + len(other.data) <= LARGE_SEND
