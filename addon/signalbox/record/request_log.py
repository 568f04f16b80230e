"""The request log: one JSON object a line, a file a day, shared by any number of processes."""

import errno
import gzip
import logging
import os
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import date, datetime
from io import BufferedIOBase, BytesIO
from itertools import chain
from pathlib import Path
from threading import Thread

import msgspec

from signalbox.record import rotation
from signalbox.record.entry import Entry, json_line
from signalbox.record.rotation import rotated_files

log = logging.getLogger("signalbox")

_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0)
"""Opening a pipe without a reader would block without end."""


class RequestLog:
    """Appends entries to `file` in `folder`; rotates it at local midnight.

    `keep` is in seconds; `now` gives the local time. No method raises OSError: losing the record is better
    than losing the request.
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
        self._file: int | None = None
        """Stays open, where others may rename it nevertheless."""
        self._lock: rotation.SharedLock | None = None
        self.reconfigure(file, keep)

    def reconfigure(self, file: str, keep: float) -> None:
        self._release()
        self._path = self._folder / file
        self._keep = keep
        self._day: date | None = None
        self._torn = False
        self.rotate_if_due()

    def write(self, *entries: Entry) -> bool:
        """Append the entries. Only the first of consecutive failures is logged.

        False where another process holds the lock: then they may be written later.
        """
        self.rotate_if_due()
        try:
            self._append(b"".join(map(json_line, entries)))
        except OSError as error:
            self._release()
            if not self._failing:
                log.error(f"requests are not recorded: {self._path}: {error.strerror or error}")
            self._failing = True
            return not isinstance(error, TimeoutError)
        if self._failing:
            log.info(f"requests are recorded again: {self._path}")
        self._failing = False
        return True

    def restore(self, entries: Iterable[Entry]) -> None:
        """Append those of today that are missing at the end of the log, because their router was killed."""
        try:
            present = set(rotation.tail(self._path).splitlines(keepends=True))
        except OSError:
            present = set()
        for entry in entries:
            is_todays = entry.ts.astimezone(self._now().tzinfo).date() == self._day
            if is_todays and json_line(entry) not in present:
                self.write(entry)

    def rotate_if_due(self) -> None:
        """Rotate the file where a new day has begun; compress and delete old files in a thread.

        Each write does this, and a timer, so that an idle router rotates in time.
        """
        now = self._now()
        if now.date() == self._day:
            return
        self._day = now.date()
        try:
            rotation.rotate(self._path, now)
            self._torn = rotation.has_partial_last_line(self._path)
            self._tidy(now)
        except TimeoutError:
            self._day = None  # another process holds the lock: the next write logs that, and tries again
        except (OSError, RuntimeError) as error:  # RuntimeError: no thread can be started
            log.warning(f"the request log could not be rotated: {error}")

    def close(self, timeout: float = 10.0) -> None:
        """Close the file, and wait at most `timeout` seconds for the thread that compresses. A crash loses
        nothing either. What is written after that opens it again."""
        self._release()
        if self._tidying:
            self._tidying.join(timeout)

    def _append(self, line: bytes) -> None:
        data = b"\n" + line if self._torn else line
        if self._lock is None:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = rotation.SharedLock(self._path)
        with self._lock:
            if self._file is not None and not rotation.is_at(self._file, self._path):
                self._close_file()  # another process has set it aside
            if self._file is None:
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._file = os.open(self._path, _APPEND, 0o600)
            written = os.write(self._file, data)
        if sys.platform == "win32":
            self._close_file()  # a file that is open cannot be renamed there
        self._torn = written < len(data)
        if self._torn:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _release(self) -> None:
        self._close_file()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _close_file(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _tidy(self, now: datetime) -> None:
        before, path, folder, keep = self._tidying, self._path, self._folder, self._keep
        kept_by = self._kept_by

        def tidy() -> None:
            if before:
                before.join()
            rotation.compress_all(path)
            by = now if kept_by is None else datetime.fromtimestamp(kept_by(), now.tzinfo)
            rotation.delete_outdated(path, folder, keep, by)

        self._tidying = Thread(target=tidy, name="signalbox-rotation", daemon=True)
        self._tidying.start()


def entries(
    folder: Path,
    file: str,
    since: datetime | None = None,
    on_broken: Callable[[], None] = lambda: None,
) -> Iterator[Entry]:
    """The recorded entries, oldest file first, archives included; from `since` (aware) on, if given.

    `on_broken` is called for each line, or end of an archive, that cannot be read. Raises OSError
    where the log is there but may not be read.
    """
    older, current = _snapshot(folder / file)
    with current:
        for line in chain(*(_lines(path, on_broken) for path in older), current):
            try:
                entry = msgspec.json.decode(line, type=Entry)
            except ValueError:
                on_broken()
                continue
            if since is None or entry.ts >= since:
                yield entry


def _snapshot(path: Path) -> tuple[list[Path], BufferedIOBase]:
    """The rotated files and the current one, opened, as they were at one moment.

    The log may be rotated at any time: listed before or after, its file would be read twice or never.
    """
    while True:
        older = rotated_files(path)
        current = _current(path)
        if [(file.day, file.number) for file in rotated_files(path)] == [(f.day, f.number) for f in older]:
            return [file.path for file in older], current
        current.close()


def _current(path: Path) -> BufferedIOBase:
    try:
        return path.open("rb")
    except FileNotFoundError:
        return BytesIO()


def _lines(path: Path, on_broken: Callable[[], None]) -> Iterator[bytes]:
    try:
        with _older(path) as log:
            yield from log
    except FileNotFoundError:
        return  # deleted meanwhile, because it was too old
    except (gzip.BadGzipFile, EOFError, zlib.error):
        on_broken()


def _older(path: Path) -> BufferedIOBase:
    if path.suffix != ".gz":
        with suppress(FileNotFoundError):  # compressed meanwhile
            return path.open("rb")
        path = path.with_name(f"{path.name}.gz")
    return gzip.open(path)
