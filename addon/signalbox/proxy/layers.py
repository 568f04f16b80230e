"""mitmproxy's HTTP layer, with streams of ours in it and a clock for them."""

import logging
import time
from collections.abc import Generator
from typing import Any

from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.layers.http import HttpLayer

from signalbox.proxy import release
from signalbox.proxy.failover import FailoverStream
from signalbox.proxy.faults import place
from signalbox.proxy.stream import Pause, PauseCompleted, Tick

log = logging.getLogger("signalbox")

type Commands[T] = Generator[commands.Command, Any, T]

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

    A stream says in `deadlines` when it wants a `Tick`. mitmproxy's wake-ups cannot be taken back and hold
    who asked for them (mitmproxy.md, 27), so the layer asks, for the earliest deadline only.
    """

    _wakes_at = float("inf")
    _alarm: commands.RequestWakeup | None = None

    def make_stream(self, stream_id: int) -> Commands[None]:
        self.streams[stream_id] = FailoverStream(self.context.fork(), stream_id)
        yield from self.event_to_child(self.streams[stream_id], events.Start())

    def _handle_event(self, event: events.Event) -> Commands[None]:
        try:
            if isinstance(event, events.Wakeup) and event.command not in self.command_sources:
                if event.command is self._alarm:
                    self._wakes_at = float("inf")
                    yield from self._sort_out(self._tick())
            else:
                yield from self._sort_out(super()._handle_event(event))
            yield from self._set_alarm()
        except Exception as fault:
            log.error("connection closed after a fault in the proxy: %s", place(fault))
            yield commands.CloseConnection(self.context.client)
        if isinstance(event, events.ConnectionClosed) and event.connection in release.gone(self):
            release.gone(self).discard(event.connection)
            self.connections.pop(event.connection, None)

    def _sort_out(self, inner: Commands[None]) -> Commands[None]:
        """The commands that go on to mitmproxy; a stream's pause is kept here until its time has come."""
        for command in inner:
            if not isinstance(command, Pause):
                yield command

    def _tick(self) -> Commands[None]:
        now = time.monotonic()
        for stream in list(self.streams.values()):
            if isinstance(stream, FailoverStream) and stream.wakes_at <= now:
                yield from self.event_to_child(stream, Tick(now))
        for pause in [c for c in self.command_sources if isinstance(c, Pause) and c.until <= now]:
            yield from self.end_pause(pause)

    def end_pause(self, pause: Pause) -> Commands[None]:
        yield from self.event_to_child(self.command_sources.pop(pause), PauseCompleted(pause, None))

    def _set_alarm(self) -> Commands[None]:
        wanted = min(
            (stream.wakes_at for stream in self.streams.values() if isinstance(stream, FailoverStream)),
            default=float("inf"),
        )
        for command in self.command_sources:
            if isinstance(command, Pause):
                wanted = min(wanted, command.until)
        if wanted < self._wakes_at:
            self._wakes_at = wanted
            self._alarm = commands.RequestWakeup(max(wanted - time.monotonic(), SHORTEST))
            yield self._alarm
