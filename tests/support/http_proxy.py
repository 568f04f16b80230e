"""An HTTP proxy on loopback: passes on what asks for a tunnel or, in plain HTTP, for a URL."""

import asyncio
import threading
from contextlib import suppress
from typing import NamedTuple, Self
from urllib.parse import urlsplit

HEAD = 64 * 1024


class Asked(NamedTuple):
    """One request to the proxy."""

    method: str
    target: str
    authorization: str | None


class HttpProxy:
    """In a thread of its own, from `with` to its end. `status` is what it answers to CONNECT; None: never."""

    def __init__(self, *, authorization: str | None = None) -> None:
        """`authorization` is what it wants in Proxy-Authorization."""
        self.asked: list[Asked] = []
        self.status: int | None = 200
        self._wanted = authorization
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._connections: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(5)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._thread.is_alive():
            self.leave()

    def leave(self) -> None:
        """Take no more connections, and end those that are open."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def tunnels(self) -> list[str]:
        return [one.target for one in self.asked if one.method == "CONNECT"]

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=HEAD)
        self.port: int = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        writers = [back]
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._pass_on(near, back, writers)
        finally:
            self._connections.discard(task)
            for writer in writers:
                writer.transport.abort()

    async def _pass_on(
        self, near: asyncio.StreamReader, back: asyncio.StreamWriter, writers: list[asyncio.StreamWriter]
    ) -> None:
        head = await near.readuntil(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").split("\r\n")
        method, target, _ = line.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in fields)}
        authorization = headers.get("proxy-authorization")
        self.asked.append(Asked(method, target, authorization))
        status = self.status
        if self._wanted is not None and authorization != self._wanted:
            status = 407
        if status is None:
            await asyncio.Event().wait()
        if status != 200:
            back.write(f"HTTP/1.1 {status} Not Today\r\nContent-Length: 0\r\n\r\n".encode())
            await back.drain()
            return
        url = urlsplit(target if method != "CONNECT" else f"//{target}")
        far, to = await asyncio.open_connection(url.hostname, url.port or 80)
        writers.append(to)
        if method == "CONNECT":
            back.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            to.write(head.replace(target.encode(), f"{url.path}?{url.query}".encode(), 1))
        passing = [asyncio.create_task(_pass(near, to)), asyncio.create_task(_pass(far, back))]
        try:
            await asyncio.wait(passing, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in passing:
                one.cancel()
            await asyncio.gather(*passing, return_exceptions=True)


async def _pass(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(65536):
        sink.write(data)
        await sink.drain()
