"""mitmproxy's HTTP layer, with streams of ours in it and a clock for them."""

import logging
import time
from collections.abc import Mapping
from math import inf
from types import MappingProxyType

from mitmproxy.connection import Connection
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.layers.http import GetHttpConnection, HttpLayer, RegisterHttpConnection

from signalbox.proxy import upstream
from signalbox.proxy.faults import place
from signalbox.proxy.gathering import gathered
from signalbox.proxy.http1 import adopt
from signalbox.proxy.stream import RoutedStream, Tick
from signalbox.proxy.upstream import Commands

log = logging.getLogger("signalbox")

SHORTEST = 0.02
"""Seconds between two looks at the clock at the least."""


def take_over(top: layer.Layer | None) -> None:
    """Put our HTTP layer in the place of mitmproxy's, in a stack that has not been started yet."""
    while top is not None:
        if type(top) is HttpLayer:
            top.__class__ = RouterLayer
            return
        top = getattr(top, "child_layer", None)


class RouterLayer(HttpLayer):
    """One client connection.

    A stream says in `wakes_at` when it wants a `Tick`. mitmproxy's wake-ups cannot be taken back and hold
    who asked for them (mitmproxy.md, 27), so the layer asks, where none comes before the earliest deadline.
    """

    _alarms: Mapping[commands.Command, float] = MappingProxyType({})
    """The wake-ups that are on their way, and when they come."""
    _closed: frozenset[Connection] = frozenset()
    """Upstream connections that are over but not forgotten yet."""

    def make_stream(self, stream_id: int) -> Commands[None]:
        self.streams[stream_id] = RoutedStream(self.context.fork(), stream_id)
        yield from self.event_to_child(self.streams[stream_id], events.Start())

    def get_connection(self, command: GetHttpConnection, *, reuse: bool = True) -> Commands[None]:
        yield from self._close_stale(self.command_sources.get(command))
        yield from super().get_connection(command, reuse=reuse)

    def _close_stale(self, asker: layer.Layer | None) -> Commands[None]:
        """What was silent for long is not used again, unless another stream is waiting on it."""
        busy = {stream.context.server for stream in self.streams.values() if stream is not asker}
        for connection in self.connections.keys() - busy:
            if connection.connected and upstream.is_stale(connection):
                yield commands.CloseConnection(connection)

    def register_connection(self, command: RegisterHttpConnection) -> Commands[None]:
        """A connection has come about, or not; nobody may be waiting for it any more."""
        upstream.opened(command.connection)
        adopt(upstream.http_client(self, command.connection))
        if command.connection in self.waiting_for_establishment:
            yield from super().register_connection(command)
        elif upstream.never_opened(command.connection):
            self.connections.pop(command.connection, None)

    def _handle_event(self, event: events.Event) -> Commands[None]:
        if isinstance(event, events.DataReceived):
            upstream.active(event.connection)
        try:
            if isinstance(event, events.Wakeup) and event.command not in self.command_sources:
                self._alarms = {alarm: at for alarm, at in self._alarms.items() if alarm is not event.command}
                yield from gathered(self._tick())
            else:
                yield from gathered(super()._handle_event(event))
            if isinstance(event, events.Start):
                adopt(self.connections[self.context.client])
            yield from self._set_alarm()
        except Exception as fault:
            log.error("connection closed after a fault in the proxy: %s", place(fault))
            yield commands.CloseConnection(self.context.client)
        if isinstance(event, events.ConnectionClosed) and event.connection is not self.context.client:
            self._closed |= {event.connection}
        self._forget_closed()

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
        wanted = min((stream.wakes_at for stream in self._waking()), default=inf)
        if wanted < inf:
            wanted = min(wanted, time.monotonic() + self.context.options.tcp_timeout / 2)
        if wanted < min(self._alarms.values(), default=inf):
            alarm = commands.RequestWakeup(max(wanted - time.monotonic(), SHORTEST))
            self._alarms = {**self._alarms, alarm: wanted}
            yield alarm

    def _forget_closed(self) -> None:
        """mitmproxy keeps upstream connections, with what was last sent there, as long as the client's."""
        for connection in [c for c in self._closed if not self._is_used(c)]:
            self._closed -= {connection}
            self.connections.pop(connection, None)

    def _is_used(self, connection: Connection) -> bool:
        return any(stream.context.server is connection for stream in self.streams.values())
