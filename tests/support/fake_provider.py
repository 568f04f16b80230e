"""A scripted provider on loopback: keeps what it received and answers as told, also wrongly."""

import asyncio
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

from tests.support.answers import Answer, Chunk, json_answer, message_json, message_sse

type Script = Answer | Callable[[Received], Answer]

HEAD_LIMIT = 1 << 20
START_CHECK = "x-start-check"
"""Marks a request to a router that may still be loading: mitmproxy alone would ask its upstream."""
POLL = 0.002


@dataclass(frozen=True)
class Received:
    """One request as it arrived. Header names keep their case and order; the body is less its chunking."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes
    time: float
    """`time.monotonic()` when the last byte was in."""
    connection: int
    """Which connection it came on, from 0."""

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Left:
    """The peer closed this connection at that `time.monotonic()`."""

    connection: int
    time: float


class Upstream:
    """A server in a thread of its own, from `with` to its end.

    Unscripted it answers like Anthropic would: a message for the asked model, streamed where asked so,
    a count for count_tokens, an empty 200 for all else.
    """

    def __init__(self, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self._tls = tls
        self.requests: list[Received] = []
        self.left: list[Left] = []
        self.connections = 0
        self._script: list[Script] = [usual]
        self._failure: Exception | None = None
        self._changed = threading.Condition()
        self._socket = socket.create_server(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._wait(lambda: self._stop is not None, 5, "the upstream to start")
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._loop is not None
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(5)
        if self._failure:
            raise self._failure

    def reset(self) -> None:
        """As it was at its start; for tests that share it."""
        self.answer(usual)
        with self._changed:
            self.requests.clear()
            self.left.clear()

    def answer(self, *script: Script) -> None:
        """Answer the coming requests with these, one each; the last one stays.

        A function is given the request; what it raises is raised again at the end of `with`.
        """
        with self._changed:
            self._script = list(script)

    def wait_for(self, n: int, timeout: float = 5) -> list[Received]:
        """All requests, once there are at least `n`."""
        self._wait(lambda: len(self.requests) >= n, timeout, f"{n} requests, have {len(self.requests)}")
        return self.requests

    def wait_left(self, n: int = 1, timeout: float = 5) -> list[Left]:
        """The connections that the peer closed, once there are at least `n`."""
        self._wait(lambda: len(self.left) >= n, timeout, f"{n} closed connections")
        return self.left

    def _wait(self, condition: Callable[[], bool], timeout: float, what: str) -> None:
        with self._changed:
            if not self._changed.wait_for(condition, timeout):
                raise TimeoutError(f"waited {timeout} s for {what}")

    async def _run(self) -> None:
        server = await asyncio.start_server(
            self._connected, sock=self._socket, limit=HEAD_LIMIT, ssl=self._tls
        )
        with self._changed:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            self._changed.notify_all()
        await self._stop.wait()
        self._loop.remove_reader(self._socket)
        await asyncio.sleep(0)  # for what was accepted last to become a connection that can be closed
        await asyncio.sleep(0)
        server.close()
        server.abort_clients()
        await server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, self.connections = self.connections, self.connections + 1
        try:
            while await self._exchange(await _read(reader, number), reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            with self._changed:
                self.left.append(Left(number, time.monotonic()))
                self._changed.notify_all()
        except Exception as failure:  # of the script: the test shall see it
            self._failure = failure
        finally:
            with suppress(OSError, NotImplementedError):  # TLS knows no half-closing
                writer.write_eof()
            writer.close()

    async def _exchange(
        self, received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Answer one request; False where the connection ends with it."""
        if received.header(START_CHECK):
            writer.write(Answer(503).head())
            return True
        with self._changed:
            script = self._script.pop(0) if len(self._script) > 1 else self._script[0]
            self.requests.append(received)
            self._changed.notify_all()
        answer = script(received) if callable(script) else script
        if answer.wait:
            await _until(answer.wait.is_set, reader)
        if answer.framing != "raw":
            writer.write(answer.head())
        for chunk in answer.chunks:
            await _play(answer, chunk, reader, writer)
        if answer.framing == "chunked" and not answer.cut:
            writer.write(b"0\r\n\r\n")
        await writer.drain()
        if answer.cut == "reset":
            _reset(writer)
        return not answer.cut and answer.framing != "close"


async def _read(reader: asyncio.StreamReader, connection: int) -> Received:
    """The next request. Raises IncompleteReadError where the peer leaves before its end."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    line, *rest = head.rstrip("\r\n").split("\r\n")
    method, path, _ = line.split(" ", 2)
    headers = [(name, value.strip()) for name, _, value in (field.partition(":") for field in rest)]
    sizes = {name.lower(): value for name, value in headers}
    if sizes.get("transfer-encoding") == "chunked":
        body = b"".join([chunk async for chunk in _chunks(reader)])
    else:
        body = await reader.readexactly(int(sizes.get("content-length", 0)))
    return Received(method, path, headers, body, time.monotonic(), connection)


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while size := int(await reader.readuntil(b"\r\n"), 16):
        yield (await reader.readexactly(size + 2))[:-2]
    await reader.readuntil(b"\r\n")


async def _play(
    answer: Answer, chunk: Chunk, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    if isinstance(chunk, bytes):
        writer.write(answer.frame(chunk))
        await writer.drain()
    elif isinstance(chunk, threading.Event):
        await _until(chunk.is_set, reader)
    else:
        end = time.monotonic() + chunk
        await _until(lambda: time.monotonic() >= end, reader)


async def _until(condition: Callable[[], bool], reader: asyncio.StreamReader) -> None:
    """Wait; a peer that leaves meanwhile raises ConnectionResetError."""
    while not condition():
        if reader.at_eof() or reader.exception():
            raise ConnectionResetError
        await asyncio.sleep(POLL)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN."""
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


def usual(received: Received) -> Answer:
    """What Anthropic would answer."""
    path = received.path.partition("?")[0]
    if path.endswith("/count_tokens"):
        return json_answer({"input_tokens": 42})
    if not path.endswith("/v1/messages") or not received.body.startswith(b"{"):
        return Answer()
    asked = received.json
    model = asked.get("model", "claude-sonnet-4-5")
    return message_sse(model) if asked.get("stream") else message_json(model)
