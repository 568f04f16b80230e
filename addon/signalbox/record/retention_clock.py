"""The clock by which records are too old: after a jump ahead nothing is deleted.

The system clock is trusted while it runs as the machine's own time does and, at the start, where it is close
to the last write of the records; else after it ran without another jump for a day.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from signalbox.config import files

DAY = 86400.0
"""Seconds for which a clock that jumped must go on, and from the last use of the records to a start whose
clock is trusted."""
JUMP = 60.0
"""Seconds between the clock and the machine's own time that are no jump."""


class RetentionClock:
    """`now` may be called by any thread."""

    def __init__(
        self,
        last_use: float | None,
        *,
        clock: Callable[[], float] = time.time,
        elapsed: Callable[[], float] | None = None,
    ) -> None:
        """`last_use` and `clock` are Unix seconds; `elapsed` counts those of the machine, sleep included."""
        self._clock = clock
        self._elapsed = elapsed or _elapsed
        self._lock = threading.Lock()
        self._latest = float("inf") if last_use is None else last_use + DAY
        """The latest time that is plausible, Unix seconds."""
        self._looked = self._elapsed()
        self._since = (self._clock(), self._looked)
        """Since when the clock has run without a jump, by both clocks."""

    def now(self) -> float:
        """Unix seconds, not later than plausible."""
        with self._lock:
            wall, ran = self._clock(), self._elapsed()
            self._latest += ran - self._looked
            self._looked = ran
            if abs((wall - self._since[0]) - (ran - self._since[1])) > JUMP:
                self._latest = min(self._latest, self._since[0] + (ran - self._since[1]) + JUMP)
                self._since = wall, ran
            elif ran - self._since[1] >= DAY:
                self._latest = wall + DAY
            return min(wall, self._latest)


def last_use(folder: Path) -> float | None:
    """When a file of the folder was last written; None where there is none, or it cannot be read."""

    def newest() -> float | None:
        return max((file.stat().st_mtime for file in folder.iterdir() if file.is_file()), default=None)

    try:
        return files.within(folder, newest)
    except OSError:
        return None


def _elapsed() -> float:
    """Seconds that go on while the machine sleeps, where the system counts them."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)
