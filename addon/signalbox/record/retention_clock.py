"""The time by which records are too old: a clock that jumps ahead deletes nothing.

It is followed at once where it goes on as the machine does and, at the start, where it is close to when the
records were last written; else it must have gone on without another jump for a day.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from signalbox.config import files

DAY = 86400.0
"""Seconds for which a clock that jumped must go on, and from the last use of the records to a start that
nobody doubts."""
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
        """What the time cannot be later than, as far as is known."""
        self._looked = self._elapsed()
        self._since = (self._clock(), self._looked)
        """From when on the clock has gone on without a jump, by both."""

    def now(self) -> float:
        """Unix seconds, not later than what is believed."""
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
    """When anything in the folder was last written; None where nothing is known of that."""

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
