"""What a page of the router's own is answered with."""

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, NamedTuple

import msgspec

from signalbox.routing.work import without_collector

PLAIN = "text/plain; charset=utf-8"
JSON = "application/json"


class PageResponse(NamedTuple):
    status: int
    body: bytes
    content_type: str = PLAIN
    headers: Mapping[str, str] = {}
    """Beside those that keep every page from being stored, framed or read as something else."""


def json_page(value: Any, status: int = 200) -> PageResponse:
    return PageResponse(status, msgspec.json.encode(value), JSON)


def not_found(what: str) -> PageResponse:
    """`what` is ours: a path is not repeated."""
    return PageResponse(404, f"{what}\n".encode())


class PageThreads:
    """Makes pages on threads of its own: no request waits for one, a database that hangs keeps no other part
    of the process waiting, and the process ends without waiting for a page (as an executor would)."""

    def __init__(self, name: str, threads: int = 2, most: int = 50) -> None:
        """`threads` pages are made at a time, `most` may be asked for."""
        self._name = f"signalbox-{name}"
        self._free = threads
        """Threads that may still be started."""
        self._jobs: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._most = most
        self._pending = 0

    async def make(self, page: Callable[..., PageResponse], *arguments: Any) -> PageResponse:
        """The page that the function gives, or 503 where too many are asked for."""
        if self._pending >= self._most:
            return PageResponse(503, b"Too many pages are asked for at a time.\n")
        self._pending += 1
        made: Future[PageResponse] = Future()

        def job() -> None:
            if made.set_running_or_notify_cancel():
                try:
                    made.set_result(_made(page, *arguments))
                except BaseException as error:
                    made.set_exception(error)

        try:
            if self._free:
                self._free -= 1
                threading.Thread(target=self._run, name=self._name, daemon=True).start()
            self._jobs.put(job)
            return await asyncio.wrap_future(made)
        finally:
            self._pending -= 1

    def _run(self) -> None:
        while True:
            self._jobs.get()()


def _made(page: Callable[..., PageResponse], *arguments: Any) -> PageResponse:
    """Streams that run beside it are hardly held up."""
    with without_collector():
        return page(*arguments)
