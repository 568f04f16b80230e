"""File access with a time limit, for disks that hang and for pipes in place of files.

Each path in use has its own thread; no other thread waits for the disk.
"""

import asyncio
import codecs
import errno
import logging
import os
import stat as modes
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

log = logging.getLogger("signalbox")

LIMIT = 5.0
"""Seconds for one file access."""
SOON = 0.05
"""Seconds that a request waits for a file at most."""
LARGEST = 16 * 1024 * 1024
"""Bytes of a file that are read; a larger one is an error."""
IDLE = 10.0
"""Seconds after which a thread without work ends."""

_OPEN = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""O_NONBLOCK, since opening a pipe without a writer would block forever."""


def read_file(path: Path, *, most: int = LARGEST, limit: float = LIMIT) -> bytes:
    """The content of a regular file. Raises OSError (and its subclass TimeoutError)."""
    return within(path, partial(_read, path, most), limit)


def without_bom(data: bytes) -> bytes:
    """Text in UTF-8 without the byte order mark with which editors on Windows begin a file."""
    return data.removeprefix(codecs.BOM_UTF8)


async def read_file_async(path: Path, *, most: int = LARGEST, limit: float = SOON) -> bytes:
    """The same for a coroutine; does not block the event loop."""
    return await within_async(path, partial(_read, path, most), limit)


def stat(path: Path, *, limit: float = LIMIT) -> os.stat_result:
    """Raises OSError (and its subclass TimeoutError)."""
    return within(path, path.stat, limit)


def within[T](path: Path, do: Callable[[], T], limit: float = LIMIT) -> T:
    """The result of `do`, called in the thread of `path`.

    Raises TimeoutError after `limit` seconds, and at once while an earlier call hangs. Raises what `do`
    raises.
    """
    return _worker(path).call(do, limit)


async def within_async[T](path: Path, do: Callable[[], T], limit: float = LIMIT) -> T:
    """The same for a coroutine; does not block the event loop."""
    return await _worker(path).call_async(do, limit)


async def in_daemon_thread[T](do: Callable[[], T]) -> T:
    """The result of `do`, called in a daemon thread: blocks neither the event loop nor the exit of the
    process."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(set_outcome: Callable[[Any], None], outcome: object) -> None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(lambda: None if future.done() else set_outcome(outcome))

    def run() -> None:
        try:
            result = do()
        except BaseException as fault:
            settle(future.set_exception, fault)
        else:
            settle(future.set_result, result)

    threading.Thread(target=run, name="signalbox-thread", daemon=True).start()
    return await future


class _Call:
    def __init__(self, do: Callable[[], Any]) -> None:
        self.do = do
        self.began = time.monotonic()
        self.abandoned = False
        self.future: Future[Any] = Future()

    def run(self) -> None:
        try:
            result = self.do()
        except BaseException as error:
            self.future.set_exception(error)
        else:
            self.future.set_result(result)


class Worker:
    """Calls functions one after the other in a thread, which starts with the first and ends when idle."""

    def __init__(self, path: Path, *, is_told: bool = True) -> None:
        """`path` is the file that is used; `is_told`: a line says where its disk does not answer."""
        self._path = path
        self._is_told = is_told
        self._lock = threading.Lock()
        self._calls: SimpleQueue[_Call] = SimpleQueue()
        self._running = False
        self._hangs: float | None = None
        """When a call began that has exceeded its caller's limit, on the monotonic clock."""
        self._logged = False

    def call[T](self, do: Callable[[], T], limit: float) -> T:
        call = self._submit(do)
        if not wait([call.future], limit).done:
            self._give_up(call)
        result: T = call.future.result()
        return result

    async def call_async[T](self, do: Callable[[], T], limit: float) -> T:
        call = self._submit(do)
        over = asyncio.Event()
        loop = asyncio.get_running_loop()

        def set_over(_: object) -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(over.set)

        call.future.add_done_callback(set_over)
        with suppress(TimeoutError):
            async with asyncio.timeout(limit):
                await over.wait()
        if not call.future.done():
            self._give_up(call)
        result: T = call.future.result()
        return result

    def _submit(self, do: Callable[[], Any]) -> _Call:
        call = _Call(do)
        with self._lock:
            if self._hangs is not None:
                raise self._late()
            self._calls.put(call)
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="signalbox-file", daemon=True).start()
        return call

    def _give_up(self, call: _Call) -> None:
        """Raises TimeoutError, unless the call has ended by now."""
        with self._lock:
            if not call.future.done():
                call.abandoned = True
                self._hangs = call.began if self._hangs is None else self._hangs
                raise self._late()

    def _late(self) -> TimeoutError:
        is_told = self._is_told and not self._logged
        if is_told and self._hangs is not None and time.monotonic() - self._hangs >= LIMIT:
            self._logged = True
            log.warning("%s: the disk does not answer; it is left out until it does", self._path)
        return TimeoutError(errno.ETIMEDOUT, "the disk does not answer", str(self._path))

    def _run(self) -> None:
        while True:
            try:
                call = self._calls.get(timeout=IDLE)
            except Empty:
                with self._lock:
                    if not self._calls.empty():
                        continue
                    self._running = False
                    return
            if not call.abandoned:
                call.run()
            with self._lock:
                if self._calls.empty():
                    self._hangs = None
                    if self._logged:
                        self._logged = False
                        log.info("%s: the disk answers again", self._path)


_workers: dict[Path, Worker] = {}


def _worker(path: Path) -> Worker:
    return _workers.setdefault(path, Worker(path))


def _read(path: Path, most: int) -> bytes:
    with os.fdopen(os.open(path, _OPEN), "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if modes.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not modes.S_ISREG(mode) and str(path) != os.devnull:
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most} bytes", str(path))
    return data
