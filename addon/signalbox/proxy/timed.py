"""A stream with a clock: it waits no longer than it means to, whatever mitmproxy is doing meanwhile."""

import time

from mitmproxy.connection import Server
from mitmproxy.proxy import events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import (
    GetHttpConnection,
    GetHttpConnectionCompleted,
    RequestProtocolError,
)

from signalbox.proxy import release
from signalbox.proxy.deadlines import Deadlines
from signalbox.proxy.stream import Commands, Pause, PauseCompleted, RouterStream, Tick

TOO_LATE = "the time for it is over"
"""Why a connection did not come about, where it is the limit on it."""
BUSY = 0.02
"""Seconds for which one stream may work before others are served."""
UNSENT = 1024 * 1024
"""Bytes for a client beyond which no more are made of what is there."""
SOON = 0.1
"""Seconds until a deadline is looked at again that came while a hook was running."""


class TimedStream(RouterStream):
    at_once: frozenset[str] = frozenset()
    """Deadlines that need not wait until a hook is over or a connection has come about."""
    connect_limit = 0.0
    _since = 0.0
    """When the stream began to work on what came last."""

    def __init__(self, context: Context, stream_id: int) -> None:
        super().__init__(context, stream_id)
        self.deadlines = Deadlines()

    def on_due(self, name: str) -> Commands[None]:
        """A deadline has come that is not one of those here."""
        yield from ()

    def on_tick(self, now: float) -> Commands[None]:
        for name in self.deadlines.due(now):
            yield from self.on_due(name)

    def handle_event(self, event: events.Event) -> Commands[None]:
        """While the stream waits for a connection or a hook, events queue up; two of them cannot wait."""
        self._since = time.monotonic()
        if self._paused is None:
            yield from super().handle_event(event)
        elif isinstance(event, Tick):
            yield from self._tick_while_waiting(event.now)
        else:
            yield from super().handle_event(event)
            if isinstance(event, RequestProtocolError):
                yield from self._stop_waiting(event.message)

    def _tick_while_waiting(self, now: float) -> Commands[None]:
        for name in self.deadlines.due(now):
            if name == "pause":
                yield from self._stop_waiting("")
            elif name == "connect" and self._paused and release.is_queued(self._parent, self._paused.command):
                self.deadlines.set(name, self.connect_limit)  # that is not the provider's doing
            elif name == "connect":
                yield from self._stop_waiting(TOO_LATE)
            elif name in self.at_once:
                yield from self.on_due(name)
            else:
                self.deadlines.set(name, SOON)

    def _stop_waiting(self, why: str) -> Commands[None]:
        """What the stream waits for ends now, unless it is a hook."""
        command = self._paused.command if self._paused else None
        if isinstance(command, Pause):
            del self._parent.command_sources[command]
            yield from super().handle_event(PauseCompleted(command, None))
        elif isinstance(command, GetHttpConnection):
            yield from release.withdraw(self._parent, command)
            yield from super().handle_event(GetHttpConnectionCompleted(command, (None, why)))

    def breathe(self) -> Commands[bool]:
        """Decoded, a few bytes may become hundreds of megabytes: others are served in between, and no more is
        made of them than the client takes. Meanwhile nothing is read from the upstream."""
        client, server = self.context.client, self.context.server
        is_own = self.server_state in (self.state_wait_for_response_headers, self.state_done)
        if is_own or time.monotonic() - self._since < BUSY:  # an answer of the router's own is small
            return True
        holds = not release.is_shared(self._parent, server)
        if holds:
            release.hold(client, server)
        yield from self.pause(0)
        while not self._has_left() and release.unsent(client, client) > UNSENT:
            yield from self.pause(SOON)
        if self._has_left():
            return False
        if holds:
            release.go_on(client, server)
        self._since = time.monotonic()
        return True

    def _has_left(self) -> bool:
        """Whether the client has, which is handled when what waits is over."""
        return any(isinstance(event, RequestProtocolError) for event in self._paused_event_queue)

    def pause(self, seconds: float) -> Commands[None]:
        """Ends early where the client leaves."""
        self.deadlines.set("pause", seconds)
        yield Pause()
        self.deadlines.clear("pause")

    def connect(self) -> Commands[tuple[Server, None] | tuple[None, str]]:
        """A connection to where the flow's request goes, or why there is none: `TOO_LATE`, for one."""
        self.deadlines.set("connect", self.connect_limit)
        request, server = self.flow.request, self.flow.server_conn
        where, tls = (request.host, request.port), request.scheme == "https"
        reply: tuple[Server, None] | tuple[None, str]
        reply = yield GetHttpConnection(where, tls, server.via, server.transport_protocol)
        self.deadlines.clear("connect")
        return reply
