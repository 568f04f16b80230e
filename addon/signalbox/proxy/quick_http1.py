"""HTTP/1 connections with readers of their own for what usual messages are made of.

mitmproxy reads a head line by line, checks the types of all fields of a message, looks each header up by
going through all of them, and reads bodies with h11, chunk by chunk. Here a usual head is read by one regular
expression, a header is found without a copy of each name, and what came in one read of the network becomes
one piece of a body. Whatever is not usual is left to mitmproxy (`http1`), and what comes of a message is the
same for any cut of its bytes: tests compare both.
"""

import re
import time
from typing import TYPE_CHECKING, Any, Protocol

import h11
from h11._readers import ChunkedReader, ContentLengthReader
from h11._receivebuffer import ReceiveBuffer
from mitmproxy import http
from mitmproxy.net.http import http1
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.commands import SendData
from mitmproxy.proxy.layers.http import (
    Http1Client,
    Http1Connection,
    Http1Server,
    ReceiveHttp,
    RequestData,
    RequestEndOfMessage,
    RequestHeaders,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
)
from mitmproxy.proxy.layers.http._events import HttpEvent

from signalbox.proxy.fields import QuickHeaders
from signalbox.proxy.http1 import HEAD_LIMIT, ClientHttp1, Commands, UpstreamHttp1

_REQUEST_LINE = re.compile(rb"(?!CONNECT )([A-Z]+) (/[^\s]*) HTTP/1\.1\r\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([2-5]\d\d)(?: ([\x21-\xff][^\r\n]*)?)?\r\n")
_FIELD = re.compile(rb"^([!#$%&'*+\-.^_`|~0-9a-zA-Z]+):([^\r\n\x0b\x0c]*)\r\n", re.MULTILINE)
_CHUNK_HEADER = re.compile(rb"([0-9A-Fa-f]{1,15})\r\n")
_LONGEST = 18
"""Digits of a length that is read here."""


def adopt(connection: layer.Layer | None) -> None:
    """Replace the class of a new HTTP/1 connection, which has read nothing yet, by ours."""
    if type(connection) is Http1Server:
        connection.__class__ = QuickClientHttp1
        connection.state = connection.read_headers
    elif type(connection) is Http1Client:
        connection.__class__ = QuickUpstreamHttp1
        connection.state = connection.read_headers


# heads


def read_request(data: bytes) -> tuple[http.Request, int | None, bytes] | None:
    """The request whose head `data` begins with, the size of its body as mitmproxy's
    `expected_http_body_size` has it, and what follows its head. None if it is not whole, or not usual."""
    if (end := _end_of_head(data)) is None or (line := _REQUEST_LINE.match(data)) is None:
        return None
    if (fields := _fields(data, line.end(), end)) is None or (size := _size(fields)) == _UNUSUAL:
        return None
    made = http.RequestData.__new__(http.RequestData)
    made.host, made.port, made.scheme, made.authority = "", 0, b"", b""
    made.method, made.path = line[1], line[2]
    _fill(made, fields)
    request = http.Request.__new__(http.Request)
    request.data = made
    return request, 0 if size == _NONE_GIVEN else size, data[end + 4 :]


def read_response(data: bytes, request: http.Request) -> tuple[http.Response, int | None, bytes] | None:
    """The same of the answer to `request`."""
    if (end := _end_of_head(data)) is None or (line := _STATUS_LINE.match(data)) is None:
        return None
    if (fields := _fields(data, line.end(), end)) is None or (size := _size(fields)) == _UNUSUAL:
        return None
    status = int(line[1])
    if status in (204, 304) or request.data.method not in (b"POST", b"GET"):
        return None
    made = http.ResponseData.__new__(http.ResponseData)
    made.status_code, made.reason = status, line[2] or b""
    _fill(made, fields)
    response = http.Response.__new__(http.Response)
    response.data = made
    return response, size, data[end + 4 :]


def _fill(made: Any, fields: list[tuple[bytes, bytes]]) -> None:
    """As mitmproxy's classes do, less a check of the type of each field."""
    made.http_version = b"HTTP/1.1"
    made.headers = QuickHeaders.read(fields)
    made.content = made.trailers = made.timestamp_end = None
    made.timestamp_start = time.time()


def _end_of_head(data: bytes) -> int | None:
    """Where a head ends of which each line ends in CR and LF."""
    end = data.find(b"\r\n\r\n", 0, HEAD_LIMIT)
    return None if end < 0 or data.count(b"\n", 0, end) != data.count(b"\r\n", 0, end) else end


def _fields(data: bytes, start: int, end: int) -> list[tuple[bytes, bytes]] | None:
    found = _FIELD.findall(data[start : end + 2])
    if len(found) != data.count(b"\n", start, end + 2):
        return None
    return [(name, value.strip()) for name, value in found]


_NONE_GIVEN = -1
_UNUSUAL = -2


def _size(fields: list[tuple[bytes, bytes]]) -> int | None:
    """Bytes of the body; None for chunks; _NONE_GIVEN where nothing is said of it; _UNUSUAL for mitmproxy."""
    size: int | None = _NONE_GIVEN
    for name, value in fields:
        if len(name) == 14 and name.lower() == b"content-length":
            is_plain = value.isdigit() and len(value) <= _LONGEST and (value[0] != 0x30 or value == b"0")
            if size != _NONE_GIVEN or not is_plain:
                return _UNUSUAL
            size = int(value)
        elif len(name) == 17 and name.lower() == b"transfer-encoding":
            if size != _NONE_GIVEN or value != b"chunked":
                return _UNUSUAL
            size = None
    return size


# bodies


class BodyReader(Protocol):
    """Reads one body. What `feed` gives: bytes of it; and what follows it, None as long as it goes on.

    Raises h11.ProtocolError; `feed` does so before it gives what came before the fault, which is in `sound`.
    """

    sound: bytes

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]: ...

    def end(self) -> None:
        """No more comes: raises where the body is not whole."""

    @property
    def pending(self) -> int:
        """Bytes that are kept because they are no whole chunk header or trailers yet."""


class Sized:
    """A body whose length is known."""

    sound = b""
    pending = 0

    def __init__(self, length: int) -> None:
        self._length = self._left = length

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        if len(data) < self._left:
            self._left -= len(data)
            return data, None
        left, self._left = self._left, 0
        return data[:left], data[left:]

    def end(self) -> None:
        raise h11.RemoteProtocolError(
            "peer closed connection without sending complete message body "
            f"(received {self._length - self._left} bytes, expected {self._length})"
        )


class UntilClosed:
    """A body that ends with its connection."""

    sound = b""
    pending = 0

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        return data, None

    def end(self) -> None:
        pass


class Chunked:
    """A body in chunks. Their usual form is read here; from the first that has another one on, h11 reads."""

    def __init__(self) -> None:
        self.sound = b""
        self._rest = b""
        """Of what came: a chunk header that is not whole."""
        self._left = 0
        """Bytes that are still to come of a chunk, with the end of its line."""
        self._strict: ChunkedReader | None = None
        self._buffer = ReceiveBuffer()

    @property
    def pending(self) -> int:
        return len(self._rest) + len(self._buffer)

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        if self._strict is not None:
            return self._feed_strict(data, [])
        if self._rest:
            data, self._rest = self._rest + data, b""
        pieces: list[bytes] = []
        at, length, left = 0, len(data), self._left
        while True:
            if left:  # of a chunk, of which the last two bytes end its line
                end = at + left
                if end > length:
                    if left > 2 and at < length:
                        pieces.append(data[at : min(length, end - 2)])
                    kept = min(length - at, max(left - 2, 0))
                    at, left = at + kept, left - kept
                    if at < length:
                        self._rest = data[at:]
                        if self._rest != b"\r":
                            return self._unusual(data, at, pieces, in_chunk=True)
                    break
                if left > 2:
                    pieces.append(data[at : end - 2])
                if data[end - 2 : end] != b"\r\n":
                    return self._unusual(data, end - 2, pieces, in_chunk=True)
                at, left = end, 0
            header = _CHUNK_HEADER.match(data, at)
            if header is None:
                if data.find(b"\n", at) < 0 and length - at < 17:
                    self._rest = data[at:]
                    break
                return self._unusual(data, at, pieces)
            size = int(header[1], 16)
            if size == 0:
                if data.startswith(b"\r\n", header.end()):
                    return b"".join(pieces), data[header.end() + 2 :]
                return self._unusual(data, at, pieces)
            at, left = header.end(), size + 2
        self._left = left
        return (pieces[0] if len(pieces) == 1 else b"".join(pieces)), None

    def _unusual(
        self, data: bytes, at: int, pieces: list[bytes], *, in_chunk: bool = False
    ) -> tuple[bytes, bytes | None]:
        """From here on h11 reads: from a chunk header on, or from the end of the line of a chunk."""
        self._strict, self._rest = ChunkedReader(), b""
        if in_chunk:
            self._strict._bytes_to_discard = b"\r\n"
        return self._feed_strict(data[at:], pieces)

    def _feed_strict(self, data: bytes, pieces: list[bytes]) -> tuple[bytes, bytes | None]:
        assert self._strict is not None
        self._buffer += data
        try:
            while isinstance(event := self._strict(self._buffer), h11.Data):
                pieces.append(bytes(event.data))
        except h11.ProtocolError:
            self.sound = b"".join(pieces)
            raise
        rest = bytes(self._buffer) if event is not None else None
        return b"".join(pieces), rest

    def end(self) -> None:
        ChunkedReader().read_eof()


def body_of(size: int | None) -> BodyReader:
    """`size` as mitmproxy's `expected_http_body_size` has it."""
    return Chunked() if size is None else UntilClosed() if size == -1 else Sized(size)


# connections


class _Quick(Http1Connection):
    """What both kinds of connection share."""

    body: BodyReader | None = None
    """None where mitmproxy's reader was made, which has read nothing yet."""
    coding = ""
    """The transfer coding of the message that is sent."""
    is_chunked = False

    def handle_event(self, event: events.Event) -> Commands:
        """No command of these layers waits for a reply, so that nothing here can be paused."""
        return self._handle_event(event) if self.debug is None else super().handle_event(event)

    def read_body(self, event: events.Event) -> Commands:
        data = bytes(self.buf)
        if data:
            self.buf = ReceiveBuffer()
        yield from self.read_piece(data, event)

    def read_piece(self, data: bytes, event: events.Event) -> Commands:
        """Of a body: `data`, then what `event` means."""
        if self.body is None:
            self.body = _body_in_place_of(self.body_reader)
        assert self.stream_id is not None
        fault: h11.ProtocolError | None = None
        rest: bytes | None = None
        piece = b""
        try:
            if isinstance(event, events.ConnectionClosed):
                self.body.end()
                rest = b""
            else:
                piece, rest = self.body.feed(data)
        except h11.ProtocolError as error:
            fault, piece = error, self.body.sound
        if piece:
            yield ReceiveHttp(self.ReceiveData(self.stream_id, piece))
        if fault is not None:
            yield commands.CloseConnection(self.conn)
            message = f"HTTP/1 protocol error: {fault}"
            code = self.ReceiveProtocolError.code
            yield ReceiveHttp(self.ReceiveProtocolError(self.stream_id, message, code=code))
        elif rest is not None:
            if rest:
                self.buf += rest
            self.body = None
            assert self.request is not None
            if self.request.data.method != b"CONNECT":
                yield ReceiveHttp(self.ReceiveEndOfMessage(self.stream_id))
            is_request = isinstance(self, Http1Server)
            yield from self.mark_done(request=is_request, response=not is_request)
        elif self.body.pending > HEAD_LIMIT:
            yield from self.without_end()

    if TYPE_CHECKING:

        def without_end(self) -> Commands: ...

    def sends(self, headers: http.Headers) -> None:
        """A message with these headers is sent next."""
        self.coding = headers.get("transfer-encoding", "").lower()
        self.is_chunked = "chunked" in self.coding

    def chunk(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if self.is_chunked else data


def _body_in_place_of(reader: Any) -> BodyReader:
    if isinstance(reader, ContentLengthReader):
        return Sized(reader._length)
    return Chunked() if isinstance(reader, ChunkedReader) else UntilClosed()


class QuickClientHttp1(_Quick, ClientHttp1):
    """To a client."""

    def _handle_event(self, event: events.Event) -> Commands:
        if type(event) is events.DataReceived and not self.buf:
            if self.state == self.read_headers:
                if (read := read_request(event.data)) is not None:
                    request, size, rest = read
                    self.request = request
                    yield ReceiveHttp(RequestHeaders(self.stream_id, request, size == 0))
                    if self.state == self.read_headers:
                        self.body, self.state = body_of(size), self.read_body
                        yield from self.read_piece(rest, event)
                    return
            elif self.state == self.read_body:
                yield from self.read_piece(event.data, event)
                return
        yield from super()._handle_event(event)

    def send(self, event: HttpEvent) -> Commands:
        if self.state == self.linger:
            return  # it has its answer
        if type(event) is ResponseData:
            if raw := self.chunk(event.data):
                yield SendData(self.conn, raw)
        elif type(event) is ResponseEndOfMessage:
            assert self.request is not None
            if self.is_chunked and self.request.data.method != b"HEAD":
                yield SendData(self.conn, b"0\r\n\r\n")
            yield from self.mark_done(response=True)
        elif type(event) is ResponseHeaders:
            self.sends(event.response.headers)
            if event.response.data.http_version == b"HTTP/1.1":
                self.response = event.response
                yield SendData(self.conn, http1.assemble_response_head(event.response))
            else:
                yield from super().send(event)
        else:
            yield from super().send(event)


class QuickUpstreamHttp1(_Quick, UpstreamHttp1):
    """To an upstream."""

    def _handle_event(self, event: events.Event) -> Commands:
        if type(event) is events.DataReceived and not self.buf:
            if self.state == self.read_body:
                yield from self.read_piece(event.data, event)
                return
            if self.state == self.read_headers and self.request is not None and self.stream_id is not None:
                read = read_response(event.data, self.request)
                if read is not None:
                    self.heard = True
                    self.response, size, rest = read
                    yield ReceiveHttp(ResponseHeaders(self.stream_id, self.response, size == 0))
                    self.body, self.state = body_of(size), self.read_body
                    yield from self.read_piece(rest, event)
                    return
        yield from super()._handle_event(event)

    def send(self, event: HttpEvent) -> Commands:
        if self.is_gone:
            return
        if type(event) is RequestData:
            if raw := self.chunk(event.data):
                yield SendData(self.conn, raw)
            return
        if type(event) is RequestEndOfMessage and (self.is_chunked or not self.coding):
            if self.is_chunked:
                yield SendData(self.conn, b"0\r\n\r\n")
            yield from self.mark_done(request=True)
            return
        if type(event) is RequestHeaders:
            self.sends(event.request.headers)
        yield from super().send(event)
