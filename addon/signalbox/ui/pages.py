"""What a page of the router's own is answered with."""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import msgspec

from signalbox.routing.work import in_short_turns, without_collector

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
    """Makes pages on threads of its own: no request waits for one, and a database that hangs keeps no other
    part of the process waiting."""

    def __init__(self, name: str, threads: int = 2, most: int = 50) -> None:
        """`threads` pages are made at a time, `most` may be asked for."""
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=f"signalbox-{name}")
        self._most = most
        self._pending = 0

    async def make(self, page: Callable[..., PageResponse], *arguments: Any) -> PageResponse:
        """The page that the function gives, or 503 where too many are asked for."""
        if self._pending >= self._most:
            return PageResponse(503, b"Too many pages are asked for at a time.\n")
        self._pending += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, _made, page, *arguments)
        finally:
            self._pending -= 1


def _made(page: Callable[..., PageResponse], *arguments: Any) -> PageResponse:
    """Streams that run beside it are hardly held up."""
    with without_collector(), in_short_turns():
        return page(*arguments)
