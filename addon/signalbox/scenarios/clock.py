"""A clock that jumps over waits, so that a slow provider costs no time.

While nothing happens, the event loop's clock is set to the next moment for which something is due. Whatever
waits for 120 seconds then does so at once, and in the right order.
"""

import asyncio
import selectors
import time
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

GRACE = 0.005
"""Seconds of real time in which a thread may still report before the clock jumps."""

_monotonic, _time = time.monotonic, time.time


class JumpingClock:
    """Stands for `time.monotonic` and `time.time` of this process while it is in force."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def monotonic(self) -> float:
        return _monotonic() + self._ahead

    def time(self) -> float:
        return _time() + self._ahead

    def jump(self, seconds: float) -> None:
        self._ahead += seconds

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """For the whole process: what is under test asks the `time` module."""
        time.monotonic, time.time = self.monotonic, self.time
        try:
            yield
        finally:
            time.monotonic, time.time = _monotonic, _time


class _JumpingSelector(selectors.BaseSelector):
    """A selector that jumps where another one would wait. All that takes part in a situation runs in one
    event loop, so that where nothing is there to be read, nothing comes before the next timer."""

    def __init__(self, clock: JumpingClock) -> None:
        self._clock = clock
        self._real = selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= GRACE:
            return self._real.select(timeout)
        if not (ready := self._real.select(GRACE)):
            self._clock.jump(timeout - GRACE)
        return ready

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def close(self) -> None:
        self._real.close()

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()


def run[T](main: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine as `asyncio.run` does, with a clock that jumps; gives what it returns."""
    clock = JumpingClock()

    def new_loop() -> asyncio.AbstractEventLoop:
        return asyncio.SelectorEventLoop(_JumpingSelector(clock))

    with clock.in_force(), asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(main)
