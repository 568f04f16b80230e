"""The request log: one JSON object a line, a file a day, shared by any number of processes."""

import errno
import os
from collections.abc import Callable, Iterable
from datetime import date, datetime
from pathlib import Path
from threading import Thread

from signalbox.record import turnover
from signalbox.record.entry import Entry, json_line
from signalbox.record.log import logger

_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0)
"""To open a pipe that nobody reads would wait for ever."""


class RequestLog:
    """Appends entries to `file` in `folder`; turns it over at local midnight.

    `keep` is in seconds, of `now` the local time is taken. Nothing here raises for what a disk does:
    losing the record is better than losing the request.
    """

    def __init__(
        self,
        folder: Path,
        file: str,
        keep: float,
        *,
        now: Callable[[], datetime],
        kept_by: Callable[[], float] | None = None,
    ) -> None:
        """`kept_by` gives the Unix seconds by which files are too old, where that is not `now`."""
        self._folder = folder
        self._kept_by = kept_by
        self._now = now
        self._tidying: Thread | None = None
        self._failing = False
        self.reconfigure(file, keep)

    def reconfigure(self, file: str, keep: float) -> None:
        self._path = self._folder / file
        self._keep = keep
        self._day: date | None = None
        self._torn = False
        self.turn_over()

    def write(self, entry: Entry) -> bool:
        """Appends the entry; of a row of failures only the first one is logged.

        False where another process holds the lock: then it may be written later.
        """
        self.turn_over()
        try:
            self._append(json_line(entry))
        except OSError as error:
            if not self._failing:
                logger.error(f"requests are not recorded: {self._path}: {error.strerror or error}")
            self._failing = True
            return not isinstance(error, TimeoutError)
        if self._failing:
            logger.info(f"requests are recorded again: {self._path}")
        self._failing = False
        return True

    def restore(self, entries: Iterable[Entry]) -> None:
        """Appends those of today that the end of the log lacks: their router was killed before it did."""
        try:
            held = set(turnover.tail(self._path).splitlines(keepends=True))
        except OSError:
            held = set()
        for entry in entries:
            is_todays = entry.ts.astimezone(self._now().tzinfo).date() == self._day
            if is_todays and json_line(entry) not in held:
                self.write(entry)

    def turn_over(self) -> None:
        """Where a new day has begun, sets the last one's file aside and tidies up behind the scenes.

        Each write does this; a clock may too, so that an idle router turns over in time.
        """
        now = self._now()
        if now.date() == self._day:
            return
        self._day = now.date()
        try:
            turnover.set_aside(self._path, now)
            self._torn = turnover.ends_torn(self._path)
            self._tidy(now)
        except TimeoutError:
            self._day = None  # another process holds the lock: the next write tells, and tries again
        except (OSError, RuntimeError) as error:  # RuntimeError: no thread can be started
            logger.warning(f"the request log could not be turned over: {error}")

    def close(self, timeout: float = 10.0) -> None:
        """Waits, at most `timeout` seconds, for what runs behind the scenes. A crash loses nothing either."""
        if self._tidying:
            self._tidying.join(timeout)

    def _append(self, line: bytes) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        data = b"\n" + line if self._torn else line
        with turnover.lock(self._path, exclusive=False):
            file = os.open(self._path, _APPEND, 0o600)
            try:
                written = os.write(file, data)
            finally:
                os.close(file)
        self._torn = written < len(data)
        if self._torn:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _tidy(self, now: datetime) -> None:
        before, path, folder, keep = self._tidying, self._path, self._folder, self._keep
        kept_by = self._kept_by

        def tidy() -> None:
            if before:
                before.join()
            turnover.compress_all(path)
            by = now if kept_by is None else datetime.fromtimestamp(kept_by(), now.tzinfo)
            turnover.delete_outdated(path, folder, keep, by)

        self._tidying = Thread(target=tidy, name="signalbox-turnover", daemon=True)
        self._tidying.start()
