"""The log of a router in the background: its console as a file that is rotated.

`signalbox.log` becomes `signalbox-2026-11-29.log`, then `signalbox-2026-11-29.2.log`; these are deleted with
the old request logs, by `log.keep` (`record.rotation`).
"""

import codecs
import io
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import date, datetime
from pathlib import Path
from typing import BinaryIO, TextIO

from signalbox.lifecycle.spec import LOG
from signalbox.record import rotation

MOST = 1_000_000
"""Bytes after which the file is rotated."""
START = 65_536
"""Characters that also go to who started the router, for the errors of the start."""


class LogFile(io.TextIOBase):
    """Standard output and error of a router without a terminal. Mode 0600. One process writes to a file.

    Turned over at MOST bytes and with the first line of another day; not while someone reads it on Windows. A
    full disk loses lines, nothing else. Any thread may write.
    """

    def __init__(
        self,
        path: Path,
        also: TextIO | None = None,
        *,
        today: Callable[[], date] = lambda: datetime.now().astimezone().date(),
    ) -> None:
        """The first START characters also go to `also`. Raises OSError where the file cannot be written."""
        self._path = path
        self._also = also
        self._left = START
        self._today = today
        self._lock = threading.Lock()
        self._is_within_line = False
        self._open()
        if self._size:
            self._day = date.fromtimestamp(path.stat().st_mtime)  # noqa: DTZ012  local, like `today`

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a text file has it as an attribute
        return "utf-8"

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False

    def write(self, text: str) -> int:
        data = text.encode("utf-8", "backslashreplace")
        with self._lock:
            self._tell(text)
            with suppress(OSError):
                if self._is_due(len(data)):
                    self._rotate()
                self._size += os.write(self._file, data)
            self._is_within_line = not text.endswith("\n")
        return len(text)

    def rotate_if_due(self) -> None:
        """Called without a write too, so that an idle log is deleted in time."""
        with self._lock, suppress(OSError):
            if self._is_due(0):
                self._rotate()

    def _tell(self, text: str) -> None:
        if self._also is None:
            return
        try:
            self._also.write(text[: self._left])
            self._also.flush()
        except (OSError, ValueError):  # the process that started the router has ended
            self._also = None
        self._left -= len(text)
        if self._left <= 0:
            self._also = None

    def _is_due(self, more: int) -> bool:
        if not self._size or self._is_within_line:
            return False
        return self._size + more > MOST or self._today() != self._day

    def _rotate(self) -> None:
        os.close(self._file)
        with suppress(OSError):
            self._path.rename(rotation.free_name(self._path, self._day))
        self._open()

    def _open(self) -> None:
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._size = os.fstat(self._file).st_size
        self._day = self._today()


def files(state: Path) -> list[Path]:
    """The logs of the router in the background of this state folder, oldest first."""
    current = state / LOG
    return [file.path for file in rotation.rotated_files(current)] + [current] * current.exists()


def clean(state: Path, *, in_use: bool) -> list[Path]:
    """Deletes the logs, of `signalbox claude` too; gives what was deleted. The one of a router that runs is
    emptied."""
    current = state / LOG
    gone = [file.path for file in rotation.background_logs(state)]
    gone += [path for path in sorted(state.glob("signalbox*.log")) if path not in gone]
    for path in gone:
        if path == current and in_use:
            os.truncate(path, 0)
        else:
            path.unlink(missing_ok=True)
    return gone


def follow(path: Path, pause: Callable[[], None]) -> Iterator[str]:
    """What is added to the log from now on, without end. `pause` is called when there is no more yet; the log
    may be rotated meanwhile, or made."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    file = _opened(path)
    if file is not None:
        file.seek(0, os.SEEK_END)
    try:
        while True:
            if file is not None and (data := file.read()):
                yield decoder.decode(data)
                continue
            if file is None or not _is_same(file, path):
                newer = _opened(path)
                if newer is not None:
                    if file is not None:
                        if rest := file.read():  # written between the last read and the rename
                            yield decoder.decode(rest)
                        file.close()
                    file = newer
                    continue
            pause()
    finally:
        if file is not None:
            file.close()


def _opened(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb")
    except FileNotFoundError:
        return None


def _is_same(file: BinaryIO, path: Path) -> bool:
    """Whether `path` is still this file, and not shorter than what was read of it."""
    try:
        now, ours = path.stat(), os.fstat(file.fileno())
    except FileNotFoundError:
        return True  # it is being rotated
    return (now.st_ino, now.st_dev) == (ours.st_ino, ours.st_dev) and now.st_size >= file.tell()
