"""A load generator for loopback: one connection timed closely, or hundreds at a time."""

import asyncio
import contextlib
import re
import socket
import time
from dataclasses import dataclass, field

STAMP = re.compile(rb"T([0-9a-f]{16})_[0-9a-f]{6}Z")
LAST = b"\r\n0\r\n\r\n"
"""How a chunked answer ends."""
TAIL = 24
"""Bytes kept of what came, for a stamp that is cut in two."""


class BenchError(Exception):
    """A target gave another answer than it was asked for."""


@dataclass
class Target:
    """Where a request goes, and how its model is named there."""

    name: str
    port: int
    model: str
    headers: dict[str, str] = field(default_factory=dict)

    def request(self, body: bytes) -> bytes:
        headers = {
            "host": f"127.0.0.1:{self.port}",
            "content-type": "application/json",
            "accept-encoding": "identity",
            "anthropic-version": "2023-06-01",
            "authorization": "Bearer sk-ant-oat01-fake-login-of-the-benchmark",
            "content-length": str(len(body)),
        } | self.headers
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"POST /v1/messages HTTP/1.1\r\n{head}\r\n".encode() + body


@dataclass
class Answer:
    """Times are seconds from when the request began to be sent."""

    first: float
    """Until the first event with text was in."""
    total: float
    events: int


class Line:
    """One kept connection: send, then read to the end of the answer."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        self._socket.close()

    def ask(self, request: bytes, events: int) -> Answer:
        """Raises BenchError where the answer is not a stream of so many events with text."""
        began = time.perf_counter()
        self._socket.sendall(request)
        data = self._socket.recv(1 << 20)
        if not data.startswith(b"HTTP/1.1 200"):
            raise BenchError(repr(data[:300]))
        parts, first, tail = [data], 0.0, data
        while True:
            if not first and STAMP.search(tail):
                first = time.perf_counter() - began
            if tail.endswith(LAST):
                break
            data = self._socket.recv(1 << 20)
            if not data:
                raise BenchError("the connection was closed within an answer")
            parts.append(data)
            tail = tail[-TAIL:] + data
        total = time.perf_counter() - began
        seen = len(STAMP.findall(_content(b"".join(parts))))
        if seen != events:
            raise BenchError(f"{seen} of {events} events came")
        return Answer(first, total, seen)


def _content(answer: bytes) -> bytes:
    """What is in the chunks, of which a proxy makes others than it got."""
    parts, at = [], answer.index(b"\r\n\r\n") + 4
    while size := int(answer[at : (end := answer.index(b"\r\n", at))], 16):
        parts.append(answer[end + 2 : end + 2 + size])
        at = end + 4 + size
    return b"".join(parts)


@dataclass
class Crowd:
    """What many connections at a time saw. `delays` are seconds from an event's leaving to its arrival."""

    answers: int = 0
    events: int = 0
    failures: int = 0
    delays: list[float] = field(default_factory=list)


class _Member(asyncio.Protocol):
    """One connection of a crowd: asks again and again while `goes_on`."""

    def __init__(self, crowd: Crowd, request: bytes, ends: float, ended: asyncio.Future[None]) -> None:
        self._crowd, self._request, self._ends, self._ended = crowd, request, ends, ended
        self._buffer = b""
        self._length = 0
        """Of a whole answer; 0 of a stream."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        crowd, buffer = self._crowd, self._buffer + data
        if data.startswith(b"HTTP/1.1"):
            length = re.search(rb"content-length: (\d+)\r\n", buffer.lower())
            self._length = buffer.index(b"\r\n\r\n") + 4 + int(length[1]) if length else 0
            if not buffer.startswith(b"HTTP/1.1 200"):
                crowd.failures += 1
                self._transport.abort()
                return
        if self._length:
            self._buffer = buffer
            if len(buffer) >= self._length:
                self._next()
            return
        end = 0
        for found in STAMP.finditer(buffer):
            crowd.events += 1
            crowd.delays.append((now - int(found[1], 16)) / 1e9)
            end = found.end()
        self._buffer = buffer[max(end, len(buffer) - TAIL) :]
        if buffer.endswith(LAST):
            self._next()

    def _next(self) -> None:
        self._crowd.answers += 1
        self._buffer = b""
        if time.monotonic() < self._ends:
            self._transport.write(self._request)
        else:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._ended.done():
            self._ended.set_result(None)


async def _crowd(port: int, request: bytes, size: int, seconds: float, spread: float, limit: float) -> Crowd:
    loop, crowd, ended = asyncio.get_running_loop(), Crowd(), []
    for _ in range(size):
        ended.append(loop.create_future())
        ends = time.monotonic() + seconds
        await loop.create_connection(
            lambda ends=ends, over=ended[-1]: _Member(crowd, request, ends, over), "127.0.0.1", port
        )
        if spread:
            await asyncio.sleep(spread / size)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.gather(*ended), limit)
    return crowd


def crowd(
    port: int, request: bytes, size: int, *, seconds: float = 0.0, spread: float = 0.0, limit: float = 60.0
) -> Crowd:
    """So many connections ask, the last one `spread` seconds after the first; each asks anew until `seconds`
    are over, once where that is 0."""
    return asyncio.run(_crowd(port, request, size, seconds, spread, limit))
