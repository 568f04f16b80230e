"""Upstream side of one attempt: connect, send, receive the head, release.

Events of mitmproxy's HTTP layer carry a stream's number only, not their connection: closing alone or draining
alone mixes bytes or kills the next attempt (mitmproxy.md, 20 to 25). `UpstreamCall.release` does all of it.
"""

import asyncio
import socket
import struct
import time
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any

from mitmproxy import http
from mitmproxy.connection import Connection, Server
from mitmproxy.net.server_spec import ServerSpec
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.layers.http import (
    GetHttpConnection,
    GetHttpConnectionCompleted,
    Http1Client,
    Http2Client,
    HttpLayer,
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
from mitmproxy.proxy.tunnel import TunnelLayer

from signalbox.config.fields import Proxy
from signalbox.errors import is_exhausted, short_reason
from signalbox.proxy.connections import DirectConnectionHandler
from signalbox.proxy.early_connection import Address, OpenEarly
from signalbox.proxy.headers import invalid_head, not_an_answer
from signalbox.proxy.http1 import UpstreamHttp1
from signalbox.proxy.outbound import MOST_CONNECTIONS, Via, carrier
from signalbox.routing import outcome as outcomes
from signalbox.routing.outcome import Outcome

if TYPE_CHECKING:
    from signalbox.proxy.pending_response import PendingResponse
    from signalbox.proxy.stream import RoutedStream

type Commands[T] = Generator[commands.Command, Any, T]

KEEPALIVE_EXPIRY = 50.0
"""Seconds of silence after which a connection is not used again. Less than where the usual front ends of
providers begin: 60 s of AWS's load balancers
(https://docs.aws.amazon.com/elasticloadbalancing/latest/application/edit-load-balancer-attributes.html),
75 s of nginx (https://nginx.org/en/docs/http/ngx_http_core_module.html#keepalive_timeout). NATs and load
balancers drop idle connections silently."""
STALE_WITHIN = 1.0
"""Seconds after a request was sent on a kept connection in which a break means that the provider had closed
that connection before: its reset takes one round trip, 0.6 s by satellite. A provider that breaks off
later had the request, and may have worked on it."""
ESTIMATE_DELAY = 0.02
"""Seconds after a request is sent before tokens are estimated, so that the upload leaves first. Hardly any
provider answers sooner."""
DETACHED = -1
"""A stream number that no stream has."""

_RESPONSE_EVENTS = (
    ResponseHeaders,
    ResponseData,
    ResponseTrailers,
    ResponseEndOfMessage,
    ResponseProtocolError,
)


class AttemptFailed(Exception):
    """An attempt ended before its answer began.

    The client gets `status` and `message` where no other target takes over, or the provider's own error,
    `answer`, if there is one. `is_cut`: no more of its body comes.
    """

    def __init__(
        self,
        outcome: Outcome,
        status: int = 502,
        message: str = "",
        answer: "PendingResponse | None" = None,
        *,
        is_cut: bool = False,
    ) -> None:
        super().__init__(message or outcome.detail)
        self.outcome = outcome
        self.status = status
        self.message = message
        self.answer = answer
        self.is_cut = is_cut


class ClientLeft(Exception):
    """The client has closed its connection or stream, or a person has killed the flow."""


class TimedOut(Exception):
    """The time for which a stream waits is over."""


class StaleConnection(Exception):
    """A connection that was kept open broke as soon as it was used again: no fault of the provider."""


class UpstreamCall:
    def __init__(self, stream: "RoutedStream") -> None:
        self._stream = stream
        self.server: Server | None = None
        self.is_reused = False
        """Whether the connection had served an earlier request."""
        self._sent = 0.0
        """When the request began to be sent, on the monotonic clock."""
        self.read_to_end = False
        """Whether the answer was, so that the connection may serve another request."""
        self._unsent: int | None = None

    @property
    def _layer(self) -> HttpLayer:
        return self._stream.http_layer

    def connect(self, limit: float) -> Commands[None]:
        """Get a connection to where the flow's request goes, within `limit` seconds. Raises AttemptFailed and
        ClientLeft."""
        stream, flow = self._stream, self._stream.flow
        where, asked = f"at {flow.request.host}:{flow.request.port}", time.time()
        proxy = stream.proxy
        forget_failed(self._layer, (flow.request.host, flow.request.port))
        command = GetHttpConnection(
            (flow.request.host, flow.request.port),
            flow.request.scheme == "https",
            self._via(proxy),
            flow.server_conn.transport_protocol,
        )
        command.blocking = stream  # type: ignore[assignment]  # its reply comes as an event, see `RoutedStream`
        yield command
        try:
            connection, error = yield from self._connected(command, limit)
        except TimedOut:
            yield from withdraw(self._layer, command)
            late = f"no connection within {limit:g} s"
            failure = outcomes.TIMEOUT.because(late)
            raise AttemptFailed(failure, 504, f"could not be reached {where}: {late}") from None
        except ClientLeft:
            yield from withdraw(self._layer, command)
            raise
        if connection is None and is_exhausted(error or ""):
            failure = outcomes.EXHAUSTED.because(short_reason(error or ""))
            what = f"was not asked: the router can open no more connections: {failure.detail}"
            raise AttemptFailed(failure, 503, what)
        if connection is None:
            failure = outcomes.CONNECT.because(short_reason(error or ""))
            raise AttemptFailed(failure, 502, f"could not be reached {where}: {failure.detail}")
        stream.context.server = flow.server_conn = self.server = connection
        to = Address(flow.request.host, flow.request.port, flow.request.scheme, proxy)
        if (exchange := stream.exchange).facts is not None:
            stream.app.likely.note(self._listener, exchange.facts.conversation, to)
        self.is_reused = (connection.timestamp_start or asked) < asked

    def open_early(self) -> Commands[None]:
        """Begin to connect to where the session's last request went; the body of this one still comes."""
        stream = self._stream
        likely = stream.app.likely.of(self._listener, stream.flow.request, stream.exchange.rules)
        if likely is not None:
            yield OpenEarly(likely, self._via(likely.proxy))

    def _via(self, proxy: Proxy | None) -> ServerSpec | None:
        """As mitmproxy has it; without a proxy of ours that of its mode `upstream`, if it has one."""
        if proxy is None:
            return self._layer.context.server.via
        via = Via(proxy)
        if (handler := self._handler) is not None:
            handler.max_conns.setdefault(via[1], asyncio.Semaphore(MOST_CONNECTIONS))
        return via

    @property
    def _listener(self) -> int:
        return int(self._stream.context.client.sockname[1])

    def _connected(
        self, command: GetHttpConnection, limit: float
    ) -> Commands[tuple[Server, None] | tuple[None, str]]:
        due, early = time.monotonic() + limit, deque[events.Event]()
        try:
            while True:
                try:
                    event = yield from self._stream.next(until=due)
                except TimedOut:
                    if not is_queued(self._layer, command):
                        raise
                    due = time.monotonic() + limit  # mitmproxy's own queue is not the provider's doing
                    continue
                if isinstance(event, GetHttpConnectionCompleted) and event.command is command:
                    return event.reply  # type: ignore[return-value]  # typed as Connection
                early.append(event)
        finally:
            self._stream.put_back(early)

    def send(self, request: http.Request) -> Commands[None]:
        """Send the whole request, which holds the real credentials."""
        stream, server, content = self._stream, self.server, request.raw_content
        assert server is not None
        self._sent = time.monotonic()
        yield SendHttp(RequestHeaders(stream.stream_id, request, not content), server)
        if content:
            yield SendHttp(RequestData(stream.stream_id, content), server)
        yield SendHttp(RequestEndOfMessage(stream.stream_id), server)

    def receive_head(self, until: float, *, again: bool) -> Commands[http.Response]:
        """The head of the answer. Meanwhile input tokens are estimated, where the answer may need that.
        `again`: this is the second try after a stale connection. Raises AttemptFailed, ClientLeft and
        StaleConnection."""
        stream, exchange, request = self._stream, self._stream.exchange, self._stream.flow.request
        estimates = exchange.outgoing is not None and exchange.outgoing.estimates
        estimate_at = time.monotonic() + ESTIMATE_DELAY if estimates else inf
        while True:
            try:
                event = yield from stream.next(min(until, estimate_at))
            except TimedOut:
                if estimate_at < until:
                    estimate_at = inf
                    exchange.estimate()
                    continue
                if self.is_sending():
                    until = time.monotonic() + exchange.first_byte_limit
                    continue
                what = f"sent no answer within {exchange.first_byte_limit:g} s"
                raise AttemptFailed(outcomes.TIMEOUT.because(what), 504, what) from None
            if isinstance(event, ResponseProtocolError):
                if not again and self.was_stale():
                    raise StaleConnection
                raise self.broke_off(event.message, outcomes.CONNECT)
            if isinstance(event, ResponseHeaders):
                status = event.response.status_code
                if wrong := not_an_answer(status, request, may_switch=False):
                    raise AttemptFailed(outcomes.no_answer(status).because(wrong), 502, wrong)
                validates = stream.context.options.validate_inbound_headers
                if validates and (invalid := invalid_head(event.response)):
                    raise self.broke_off(invalid, outcomes.CONNECT)
                return event.response

    def broke_off(self, message: str, outcome: Outcome) -> AttemptFailed:
        """The failure of a connection that broke before an answer, with mitmproxy's message about it."""
        failure, request = outcome.because(short_reason(message)), self._stream.flow.request
        where = f"at {request.host}:{request.port}"
        return AttemptFailed(failure, 502, f"{where} broke off before it answered: {failure.detail}")

    def was_stale(self) -> bool:
        """Whether a connection that just broke was closed before the request came: it had served an earlier
        one, and broke at once, without a byte of an answer."""
        client = http_client(self._layer, self.server) if self.server is not None else None
        was_heard = isinstance(client, UpstreamHttp1) and client.heard
        return self.is_reused and not was_heard and time.monotonic() - self._sent < STALE_WITHIN

    def is_sending(self) -> bool:
        """Whether the request is still on its way: a long one takes its time, but it has to get on."""
        if self.server is None:
            return False
        before, self._unsent = self._unsent, unsent(self._transport(self.server))
        return self._unsent > 0 if before is None else self._unsent < before

    def hold(self) -> None:
        """Read nothing more from this upstream until `go_on`, unless others are on its connection."""
        if (server := self._own_connection) is not None:
            handler = self._handler
            if isinstance(handler, DirectConnectionHandler):
                handler.hold(carrier(self._layer, server))
            elif (transport := self._open_transport(server)) is not None:
                transport.pause_reading()

    def go_on(self) -> None:
        if (server := self._own_connection) is not None:
            handler = self._handler
            if isinstance(handler, DirectConnectionHandler):
                handler.go_on(carrier(self._layer, server))
            elif (transport := self._open_transport(server)) is not None:
                transport.resume_reading()

    @property
    def _own_connection(self) -> Server | None:
        """None where others are on it."""
        shared = self.server is None or isinstance(http_client(self._layer, self.server), Http2Client)
        return None if shared else self.server

    def _open_transport(self, server: Server) -> asyncio.Transport | None:
        transport = self._transport(server)
        is_open = isinstance(transport, asyncio.Transport) and not transport.is_closing()
        return transport if is_open and isinstance(transport, asyncio.Transport) else None

    def unsent_to_client(self) -> int:
        """Bytes that the client has not taken yet."""
        return unsent(self._transport(self._stream.context.client))

    def _transport(self, peer: Connection) -> asyncio.WriteTransport | None:
        """Of a connection of this client, or of the client itself."""
        handler = self._handler
        found = handler.transports.get(carrier(self._layer, peer)) if handler is not None else None
        return found.writer.transport if found is not None and found.writer is not None else None

    @property
    def _handler(self) -> Any:
        """mitmproxy's, of this client's connections."""
        proxyserver = self._stream.app.master.addons.get("proxyserver")
        return proxyserver.connections.get(self._stream.context.client.id)

    def release(self) -> Commands[None]:
        """Nothing of this call reaches the stream any more. What is under way upstream is cancelled."""
        stream, server, parent = self._stream, self.server, self._layer
        if server is not None and server in parent.connections:
            if not self.read_to_end:
                shared = isinstance(http_client(parent, server), Http2Client)
                cancelled = RequestProtocolError(stream.stream_id, "given up", ErrorCode.CANCEL)
                yield SendHttp(cancelled, server)
                if not shared:
                    abort(self._transport(server))
            detach(parent, server, stream.stream_id)
        self.server = None
        stream.drop_queued(_RESPONSE_EVENTS)


# mitmproxy's HTTP clients


def http_client(parent: HttpLayer, server: Connection) -> Http1Client | Http2Client | None:
    """The last of the layers that mitmproxy has put on a connection; None where there is none (any more)."""
    found: layer.Layer | None = parent.connections.get(server)
    while found is not None and not isinstance(found, Http1Client | Http2Client):
        found = getattr(found, "child_layer", None)
    return found


def detach(parent: HttpLayer, server: Connection, stream_id: int) -> None:
    """Late events of this connection go to no stream; another request may be sent on it."""
    client = http_client(parent, server)
    if isinstance(client, Http1Client) and client.stream_id == stream_id:
        client.stream_id = DETACHED
    elif isinstance(client, Http2Client):
        ours = client.our_stream_id.pop(stream_id, None)
        if ours is not None:
            client.their_stream_id[ours] = DETACHED
        client.stream_queue.pop(stream_id, None)


# connections


def abort(transport: asyncio.WriteTransport | None) -> None:
    """Reset a connection now; closing it would first finish what is being sent."""
    if transport is None:
        return
    raw = transport.get_extra_info("socket")
    if raw is not None:
        with suppress(OSError):  # it was reset from the other side
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()


def unsent(transport: asyncio.WriteTransport | None) -> int:
    """Bytes that wait to be taken by a connection's peer."""
    return transport.get_write_buffer_size() if transport is not None else 0


def forget_failed(parent: HttpLayer, address: tuple[str, int]) -> None:
    """A connection that failed is not handed out again: the next request tries anew (mitmproxy.md, 24)."""
    failed = [c for c in parent.connections if isinstance(c, Server) and c.error and c.address == address]
    for server in failed:
        if never_opened(parent, server):
            forget(parent, server)
        server.error = None


def never_opened(parent: HttpLayer, connection: Connection) -> bool:
    """Whether no end of this connection will be told, by which it would be forgotten."""
    carried_by = carrier(parent, connection)
    return isinstance(carried_by, Server) and carried_by.timestamp_tcp_setup is None


def forget(parent: HttpLayer, connection: Connection) -> None:
    """Of a connection through a proxy also the one to that proxy, and the other way round."""
    gone = parent.connections.pop(connection, None)
    if isinstance(gone, TunnelLayer):
        for other in [c for c, top in parent.connections.items() if top is gone]:
            del parent.connections[other]


def is_queued(parent: HttpLayer, command: object) -> bool:
    """Whether what this command waits for has not begun: mitmproxy opens a few connections at a time."""
    server = _awaited(parent, command)
    return server is not None and carrier(parent, server).timestamp_start is None


def withdraw(parent: HttpLayer, command: GetHttpConnection) -> Iterator[commands.Command]:
    """The command is not waited for any more; where no other waits for its connection, that is given up.

    A connection that has not begun ends without an event, so it is forgotten here.
    """
    if command not in parent.command_sources:
        return
    del parent.command_sources[command]
    server = _awaited(parent, command)
    if server is None:
        return
    others = [other for other in parent.waiting_for_establishment[server] if other is not command]
    parent.waiting_for_establishment[server] = others
    if others:
        return
    del parent.waiting_for_establishment[server]
    opened = carrier(parent, server)
    if opened.timestamp_start is None:
        forget(parent, server)
        for source in [c for c in parent.command_sources if getattr(c, "connection", None) is opened]:
            del parent.command_sources[source]
    yield commands.CloseConnection(opened)


def _awaited(parent: HttpLayer, command: object) -> Connection | None:
    """Commands for the same address are equal; it is identity that counts."""
    waiting = parent.waiting_for_establishment.items()
    return next((server for server, those in waiting if any(one is command for one in those)), None)
