"""HTTP/1 connections: mitmproxy's, with bounds, and with what they do not handle.

mitmproxy 12.3 reads heads, chunk headers and trailers of any size, takes a 1xx for the answer, fails on
trailers, and answers what it cannot parse with an HTML page.
"""

import re
from typing import NoReturn

import h11
from h11._readers import ChunkedReader
from h11._receivebuffer import ReceiveBuffer
from mitmproxy.net.http import http1
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.commands import CloseConnection, CloseTcpConnection, SendData
from mitmproxy.proxy.layers.http import (
    Http1Client,
    Http1Server,
    ReceiveHttp,
    RequestHeaders,
    RequestProtocolError,
    ResponseProtocolError,
)
from mitmproxy.proxy.layers.http._events import ErrorCode, HttpEvent

from signalbox.proxy.local_responses import error

type Commands = layer.CommandGenerator[None]

HEAD_LIMIT = 256 * 1024
"""Bytes of a head, a chunk header or trailers; 431 is for heads beyond it (RFC 6585, section 5)."""
AHEAD_LIMIT = 32 * 1024 * 1024
"""Bytes that a client may send of its next requests while one is under way."""
REFUSED = (ErrorCode.REQUEST_VALIDATION_FAILED, ErrorCode.DESTINATION_UNKNOWN)
"""Why mitmproxy refuses a request whose head it could read."""
LINGER = 2.0
"""Seconds for which a client that is refused may go on writing: closed at once, it would be reset and might
not see the answer (RFC 9112, section 9.6)."""

_INFORMATIONAL = re.compile(rb"HTTP/\d\.\d 1(?!01)\d\d[^\n]*\n(?:[^\r\n][^\n]*\n)*\r?\n")


def adopt(connection: layer.Layer | None) -> None:
    """Replace the class of a new HTTP/1 connection, which has read nothing yet, by ours."""
    if type(connection) is Http1Server:
        connection.__class__ = ClientHttp1
        connection.state = connection.read_headers
    elif type(connection) is Http1Client:
        connection.__class__ = UpstreamHttp1
        connection.state = connection.read_headers


class ClientHttp1(Http1Server):
    """To a client. Requests that come before the answer to the one before them (pipelining) are read one by
    one, each when all is done that the end of that answer leads to: mitmproxy reads the next one in the midst
    of that, when the upstream connection still counts as busy."""

    has_next = False
    """Whether the next request, or the beginning of one, is there already: the layer lets it be read."""
    _is_between = False

    def mark_done(self, *, request: bool = False, response: bool = False) -> Commands:
        self._is_between = True
        yield from super().mark_done(request=request, response=response)
        self._is_between = False

    def read_next(self) -> events.DataReceived:
        """The event with which the next request is read."""
        self.has_next = False
        return events.DataReceived(self.conn, b"")

    def _handle_event(self, event: events.Event) -> Commands:
        yield from super()._handle_event(event)
        if self.state == self.read_headers and len(self.buf) > HEAD_LIMIT and not self.has_next:
            yield from self._refuse(431, "The head of the request is larger than this router takes.")
        elif self.state == self.read_body and len(self.buf) > HEAD_LIMIT:
            yield from self.without_end()
        elif self.state == self.wait and len(self.buf) > AHEAD_LIMIT:
            yield from self._give_up("too much sent before the answer to an earlier request")

    def send(self, event: HttpEvent) -> Commands:
        if self.state == self.linger:
            return  # it has its answer
        if isinstance(event, ResponseProtocolError) and event.code in REFUSED:
            yield from self._refuse(400, event.message)
        else:
            yield from super().send(event)

    def read_headers(self, event: events.ConnectionEvent) -> Commands:
        if self._is_between:
            self.has_next = True
            return
        is_refused = False
        for command in super().read_headers(event):
            if isinstance(command, SendData):  # mitmproxy's own page
                is_refused = True
                yield from self._refuse(400, "The request is not valid HTTP.")
            elif not (is_refused and isinstance(command, CloseConnection)):
                yield command
        if is_refused:
            self.state = self.linger

    def read_body(self, event: events.Event) -> Commands:
        _without_trailers(self)
        yield from super().read_body(event)

    def linger(self, event: events.Event) -> Commands:
        """What still comes is thrown away."""
        self.buf = ReceiveBuffer()
        if isinstance(event, events.ConnectionClosed | events.Wakeup):
            yield CloseConnection(self.conn)

    def _refuse(self, status: int, message: str) -> Commands:
        answer = error(status, message, headers={"connection": "close"})
        self.state = self.linger
        self.buf = ReceiveBuffer()
        yield SendData(self.conn, http1.assemble_response(answer))
        yield CloseTcpConnection(self.conn, half_close=True)
        yield commands.RequestWakeup(LINGER)

    def without_end(self) -> Commands:
        """A chunk header or trailers are longer than any is taken."""
        return self._give_up("a chunk header or trailers without end")

    def _give_up(self, message: str) -> Commands:
        self.state = self.done
        self.buf = ReceiveBuffer()
        yield CloseConnection(self.conn)
        yield ReceiveHttp(RequestProtocolError(self.stream_id, message, ErrorCode.GENERIC_CLIENT_ERROR))


class UpstreamHttp1(Http1Client):
    """To an upstream."""

    heard = False
    """Whether a byte has come since the last request was sent, be it of a 1xx."""
    is_gone = False
    """Whether it was closed after its answer, before it had all of the request: no more of that is sent."""

    def send(self, event: HttpEvent) -> Commands:
        if self.is_gone:
            return
        if isinstance(event, RequestHeaders):
            self.heard = False
        yield from super().send(event)

    def mark_done(self, *, request: bool = False, response: bool = False) -> Commands:
        yield from super().mark_done(request=request, response=response)
        if self.response_done and not self.request_done:
            self.state = self.has_answered

    def has_answered(self, event: events.Event) -> Commands:
        """The request is still on its way. What more comes is thrown away."""
        self.buf = ReceiveBuffer()
        if isinstance(event, events.ConnectionClosed):
            self.is_gone, self.state = True, self.done
            yield CloseConnection(self.conn)

    def _handle_event(self, event: events.Event) -> Commands:
        yield from super()._handle_event(event)
        if self.state in (self.read_headers, self.read_body) and len(self.buf) > HEAD_LIMIT:
            yield from self.without_end()

    def without_end(self) -> Commands:
        """A head, a chunk header or trailers are longer than any is taken."""
        self.state = self.done
        self.buf = ReceiveBuffer()
        yield CloseConnection(self.conn)
        if self.stream_id is not None:
            message = "sent a head, a chunk header or trailers without end"
            yield ReceiveHttp(ResponseProtocolError(self.stream_id, message, ErrorCode.GENERIC_SERVER_ERROR))

    def read_headers(self, event: events.ConnectionEvent) -> Commands:
        self.heard = self.heard or isinstance(event, events.DataReceived)
        self._skip_informational()
        yield from super().read_headers(event)

    def read_body(self, event: events.Event) -> Commands:
        _without_trailers(self)
        yield from super().read_body(event)

    def _skip_informational(self) -> None:
        """Drop whole 1xx heads other than 101; the answer comes after them (RFC 9110, section 15.2)."""
        if self.request is None or not self.buf:
            return
        data, end = bytes(self.buf), 0
        while head := _INFORMATIONAL.match(data, end):
            end = head.end()
        self.buf.maybe_extract_at_most(end)


class WithoutTrailers:
    """h11's reader of chunks, less the trailers, which mitmproxy fails on."""

    def __init__(self, chunks: ChunkedReader) -> None:
        self._chunks = chunks

    def __call__(self, buffer: ReceiveBuffer) -> h11.Data | h11.EndOfMessage | None:
        event = self._chunks(buffer)
        return h11.EndOfMessage() if isinstance(event, h11.EndOfMessage) else event

    def read_eof(self) -> NoReturn:
        self._chunks.read_eof()


def _without_trailers(connection: Http1Client | Http1Server) -> None:
    reader = connection.body_reader
    if type(reader) is ChunkedReader:
        connection.body_reader = WithoutTrailers(reader)  # type: ignore[assignment]  # has h11's calls
