"""A stream and the one upstream that it asks now: meeting it, sending to it, letting it go."""

import time
from collections import deque

from mitmproxy.connection import Server
from mitmproxy.proxy.layers.http import (
    RequestData,
    RequestEndOfMessage,
    RequestHeaders,
    RequestProtocolError,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
    ResponseTrailers,
    SendHttp,
)
from mitmproxy.proxy.layers.http._events import ErrorCode

from signalbox.proxy import release
from signalbox.proxy.http1 import UpstreamHttp1
from signalbox.proxy.speaker import speaker
from signalbox.proxy.stream import Commands
from signalbox.proxy.timed import TimedStream

STALE = 1.0
"""Seconds after a request was sent on a kept connection in which a break means that the provider had closed
that connection before: its reset takes one round trip, 0.6 s by satellite. A provider that breaks off
later had the request, and may have worked on it."""

_OF_AN_ANSWER = (ResponseHeaders, ResponseData, ResponseTrailers, ResponseEndOfMessage, ResponseProtocolError)


class AskingStream(TimedStream):
    _talks = False
    """Whether a request of ours is under way at `context.server`."""
    _reused = False
    """Whether that connection had served an earlier request."""
    _sent = 0.0
    """When that request began to be sent, on the monotonic clock."""
    _read_to_end = False
    """Whether its answer was."""
    _unsent: int | None = None
    """Bytes that waited to be taken by it when that was looked at last."""

    def _meet(self) -> Commands[str]:
        """Get a connection to where the flow's request goes; gives what went wrong, if anything did."""
        asked = time.time()
        release.forget_failed(self._parent, (self.flow.request.host, self.flow.request.port))
        connection, fault = yield from self.connect()
        if isinstance(connection, Server):
            self.context.server = self.flow.server_conn = connection
            self._talks, self._read_to_end, self._unsent = True, False, None
            self._sent = time.monotonic()
            self._reused = (connection.timestamp_start or asked) < asked
        return fault or ""

    def _send_request(self) -> Commands[None]:
        request, server = self.flow.request, self.context.server
        content = request.raw_content
        yield SendHttp(RequestHeaders(self.stream_id, request, not content), server)
        if content:
            yield SendHttp(RequestData(self.stream_id, content), server)
        yield SendHttp(RequestEndOfMessage(self.stream_id), server)

    def _was_stale(self) -> bool:
        """Whether a connection that just broke was closed before the request came: it had served an earlier
        one, and broke at once, without a byte of an answer."""
        upstream = speaker(self._parent, self.context.server)
        was_heard = isinstance(upstream, UpstreamHttp1) and upstream.heard
        return self._reused and not was_heard and time.monotonic() - self._sent < STALE

    def _is_sending(self) -> bool:
        """Whether the request is still on its way: a long one takes its time, but it has to get on."""
        before, self._unsent = self._unsent, release.unsent(self.context.client, self.context.server)
        return self._unsent > 0 if before is None else self._unsent < before

    def _let_go(self) -> Commands[None]:
        """Nothing of the current attempt reaches this stream any more (mitmproxy.md, 20)."""
        server, parent = self.context.server, self._parent
        self.deadlines.clear("connect", "first_byte", "idle")
        if self._talks and server in parent.connections:
            if not self._read_to_end:
                yield from self._abort()
            release.forget_stream(parent, server, self.stream_id)
        self._talks = False
        kept = (event for event in self._paused_event_queue if not isinstance(event, _OF_AN_ANSWER))
        self._paused_event_queue = deque(kept)
        self.response_body_buf.clear()

    def _abort(self) -> Commands[None]:
        """Cancel what is under way upstream, at once."""
        server = self.context.server
        shared = release.is_shared(self._parent, server)
        yield SendHttp(RequestProtocolError(self.stream_id, "given up", ErrorCode.CANCEL), server)
        if not shared:
            release.abort(self.context.client, server)
