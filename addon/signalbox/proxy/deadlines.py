"""What a stream waits for no longer than until a moment."""

import time
from collections.abc import Iterator
from math import inf


class Deadlines:
    """By name, on the monotonic clock. Seconds are counted from now."""

    def __init__(self) -> None:
        self._at: dict[str, float] = {}

    @property
    def next(self) -> float:
        return min(self._at.values(), default=inf)

    def set(self, name: str, seconds: float) -> None:
        self._at[name] = time.monotonic() + seconds

    def keep(self, name: str, seconds: float) -> None:
        """Set it unless it is set."""
        self._at.setdefault(name, time.monotonic() + seconds)

    def clear(self, *names: str) -> None:
        for name in names:
            self._at.pop(name, None)

    def clear_all(self) -> None:
        self._at.clear()

    def due(self, now: float) -> Iterator[str]:
        """Each that has come, once; one that is set anew meanwhile is not due."""
        for name in [name for name, at in self._at.items() if at <= now]:
            if self._at.get(name, inf) <= now:
                del self._at[name]
                yield name
