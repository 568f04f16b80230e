"""Decisions whose slow parts can run in a thread: all that takes long with a body of many megabytes.

Such a decision is a generator. It yields functions without side effects on shared state; the caller runs each
one, in place or in a thread, and sends back its result or throws its exception. The code between two of them
runs on the event loop, which alone reads and changes what requests share.
"""

import asyncio
import gc
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

type Work[T] = Generator[Callable[[], Any], Any, T]
"""A decision that comes to a `T`."""

_threads = ThreadPoolExecutor(2, thread_name_prefix="signalbox-work")
"""Two: what they run holds the interpreter, and the event loop waits for each of them in turn."""
_lock = threading.Lock()
_running = 0
"""Functions that run in threads now."""


class WorkRun[T]:
    """Drives a decision function by function, for a caller that waits in its own way.

    `job` is the function to call next; None once the decision is made, which is then `result`.
    """

    result: T

    def __init__(self, work: Work[T]) -> None:
        self._work = work
        self.job: Callable[[], Any] | None = None
        self.returned(None)

    def returned(self, value: Any) -> None:
        """Go on with what the function returned. Raises what the decision raises."""
        self._go_on(lambda: self._work.send(value))

    def raised(self, error: Exception) -> None:
        """The same with what it raised."""
        self._go_on(lambda: self._work.throw(error))

    def _go_on(self, step: Callable[[], Callable[[], Any]]) -> None:
        try:
            self.job = step()
        except StopIteration as end:
            self.job, self.result = None, end.value


def in_place[T](work: Work[T]) -> T:
    """Make the decision now, without a thread. Raises what it raises."""
    steps = WorkRun(work)
    while steps.job is not None:
        try:
            value = steps.job()
        except Exception as error:
            steps.raised(error)
        else:
            steps.returned(value)
    return steps.result


def start(job: Callable[[], Any]) -> Future[Any]:
    """Run a function of a decision in a thread."""
    return _threads.submit(_run, job)


def _run(job: Callable[[], Any]) -> Any:
    with without_collector():
        return job()


@contextmanager
def without_collector() -> Iterator[None]:
    """Python's cyclic collector stops every thread while it looks at all objects. A body of 30 MB can become
    a million of them, which takes it a second, and they are in no cycles: it pauses until they are gone."""
    global _running
    with _lock:
        _running += 1
        gc.disable()
    try:
        yield
    finally:
        with _lock:
            _running -= 1
            if not _running:
                gc.enable()


async def in_thread[T](work: Work[T]) -> T:
    """Make the decision with its functions in a thread. Raises what it raises."""
    steps = WorkRun(work)
    while steps.job is not None:
        try:
            value = await asyncio.wrap_future(start(steps.job))
        except Exception as error:
            steps.raised(error)
        else:
            steps.returned(value)
    return steps.result


class LoopTurns:
    """Spreads work that takes milliseconds over the turns of an event loop, one piece each, so that what else
    is ready runs in between. Fifty large requests that are complete at once do not delay the others by the
    sum of their work.
    """

    def __init__(self) -> None:
        self._is_taken = False
        """Whether this turn of the loop has had its piece of work."""
        self._waiting: deque[asyncio.Future[None]] = deque()

    def take(self) -> bool:
        """Whether there may be a piece of work now; no other one then comes in this turn of the loop. Always
        where no loop runs."""
        if self._is_taken:
            return False
        with suppress(RuntimeError):
            asyncio.get_running_loop().call_soon(self._next_turn)
            self._is_taken = True
        return True

    async def come(self) -> None:
        """Wait for a turn of one's own; the first who asked gets the first."""
        if not self.take():
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn

    def _next_turn(self) -> None:
        self._is_taken = False
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # it may have been cancelled
                turn.set_result(None)
                self._is_taken = True
                asyncio.get_running_loop().call_soon(self._next_turn)
                return
