"""Runs one task in a thread again and again, so that the event loop never waits for a file."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress

log = logging.getLogger("signalbox")

RETRY = 1.0
"""Seconds until a task that raised is run again."""

type _Waiter = tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]


class Worker:
    """Runs `task` in a thread of its own: when `wake` is called, and after the delay that it returned.

    `task(is_last)` returns the seconds until the next run, or None; `is_last` is true in the run that `close`
    waits for. The thread starts with the first `wake` and is a daemon: a disk that hangs keeps no process
    alive.
    """

    def __init__(self, name: str, task: Callable[[bool], float | None]) -> None:
        self._name = name
        self._task = task
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._waiters: list[_Waiter] = []
        """Coroutines that wait for the next run."""
        self._began: float | None = None
        """When the current run began, on the monotonic clock."""
        self._closing = False
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Run the task soon. Returns at once; after `close` the thread starts again."""
        with self._lock:
            self._wake()

    async def ran(self, limit: float) -> None:
        """Waits for the end of a run that begins after this call, at most `limit` seconds. Does not block the
        event loop.

        Returns at once if the current run has taken longer than `limit` already.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with self._lock:
            if self._began is not None and time.monotonic() - self._began > limit:
                return
            self._waiters.append((future.get_loop(), future))
            self._wake()
        with suppress(TimeoutError):
            async with asyncio.timeout(limit):
                await future

    @property
    def is_busy(self) -> bool:
        """Whether a run is under way or due at once."""
        return self._began is not None or self._wanted.is_set()

    def close(self, timeout: float) -> None:
        """Runs the task once more and ends the thread. Returns after at most `timeout` seconds."""
        with self._lock:
            self._closing = True
            self._wanted.set()
            thread = self._thread
        if thread is not None:
            thread.join(timeout)

    def _wake(self) -> None:
        self._wanted.set()
        if self._thread is None:
            self._closing = False
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def _run(self) -> None:
        delay: float | None = None
        while True:
            self._wanted.wait(delay)
            with self._lock:
                self._wanted.clear()
                waiters, self._waiters = self._waiters, []
                self._began = time.monotonic()
                is_last = self._closing
            try:
                delay = self._task(is_last)
            except Exception as error:  # the next run may succeed
                log.error("error in the thread %s: %s", self._name, type(error).__name__)
                delay = RETRY
            for waiter in waiters:
                _release(*waiter)
            with self._lock:
                self._began = None
                if is_last and not self._wanted.is_set():
                    self._thread = None
                    return


def _release(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> None:
    def release() -> None:
        if not future.done():
            future.set_result(None)

    with suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(release)
