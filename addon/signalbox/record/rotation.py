"""Rotation of the request log: `requests.jsonl` becomes `requests-2026-11-19.jsonl`, then `.jsonl.gz`.

The rename happens under a lock, so that no process writes to the file any more. Compressing can be done
twice, or again after a crash: the same file gives the same archive, and is deleted only once that is on the
disk.
"""

import errno
import gzip
import logging
import os
import re
import shutil
import sys
import tempfile
import time as clock
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date, datetime, time, tzinfo
from pathlib import Path

import msgspec

from signalbox.record.entry import Moment

log = logging.getLogger("signalbox")

if sys.platform != "win32":
    import fcntl

TAIL = 1024 * 1024
PATIENCE = 1.0
"""Seconds to wait for a lock, which others hold for milliseconds."""
DATED = r"-(?P<day>\d{4}-\d\d-\d\d)(?:\.(?P<number>\d+))?"
BACKGROUND_LOG = re.compile(rf"signalbox[\w.-]*?{DATED}\.log(?:\.gz)?")


class RotatedFile(msgspec.Struct, frozen=True, order=True):
    """A rotated file: its last day, and its number where the day has several."""

    day: date
    number: int
    path: Path


class _Stamp(msgspec.Struct):
    ts: Moment


@contextmanager
def lock(path: Path, *, exclusive: bool) -> Iterator[None]:
    """Those who append to `path` share the lock; who sets it aside has it alone, for a moment.

    Windows has no such lock and needs none: a file that someone has open cannot be renamed there.
    """
    if sys.platform == "win32":
        yield
        return
    file = _open_lock(path)
    try:
        _take(file, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        yield
    finally:
        os.close(file)


class SharedLock:
    """The same lock, shared, for one who appends often: its file stays open. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._name = _lock_file(path)
        self._file: int | None = None

    def __enter__(self) -> None:
        if sys.platform == "win32":
            return
        if self._file is None or not is_at(self._file, self._name):
            self.close()
            self._file = _open_lock(self._path)
        _take(self._file, fcntl.LOCK_SH)

    def __exit__(self, *raised: object) -> None:
        if sys.platform != "win32" and self._file is not None:
            with suppress(OSError):
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _lock_file(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _open_lock(path: Path) -> int:
    return os.open(_lock_file(path), os.O_RDWR | os.O_CREAT, 0o600)


def is_at(file: int, path: Path) -> bool:
    """Whether an open file is the one at this path."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))  # noqa: PTH116 (half the time of Path.stat)
    except FileNotFoundError:
        return False


def _take(file: int, how: int) -> None:
    """Raises TimeoutError where another process holds the lock for longer than PATIENCE."""
    ends = clock.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if clock.monotonic() > ends:
                raise TimeoutError(errno.ETIMEDOUT, "another process holds the lock of the log") from None
            clock.sleep(0.01)
        except OSError:
            return  # some network file systems have no locks
        else:
            return


def rotate(path: Path, now: datetime) -> None:
    """Renames the log at `path` by the day of its last entries if that is before `now`'s. Raises OSError."""
    if not path.exists():
        return
    with lock(path, exclusive=True), suppress(FileNotFoundError):  # another process may have done it
        day = _last_day(path, now.tzinfo)
        if day < now.date():
            path.rename(free_name(path, day))


def rotated_files(path: Path) -> list[RotatedFile]:
    """The rotated files of the log at `path`, oldest first; of a file and its archive the file."""
    found: dict[tuple[date, int], RotatedFile] = {}
    for file in sorted(_dated(path.parent, _own_names(path))):
        found.setdefault((file.day, file.number), file)
    return list(found.values())


def background_logs(folder: Path) -> list[RotatedFile]:
    """The background logs in this folder that were rotated, oldest first."""
    return sorted(_dated(folder, BACKGROUND_LOG))


def compress_all(path: Path) -> None:
    """Compress the rotated files of the log at `path`, also those of a process that ended before it could."""
    for file in rotated_files(path):
        if file.path.suffix != ".gz":
            try:
                _compress(file.path)
            except FileNotFoundError:
                continue  # another process did it
            except OSError as error:
                log.warning(f"{file.path} could not be compressed: {error.strerror or error}")


def delete_outdated(path: Path, folder: Path, keep: float, now: datetime) -> None:
    """Delete rotated request and background logs whose last moment is more than `keep` seconds ago."""
    own = re.compile(rf"{_own_names(path).pattern}(?:\.\w+\.tmp)?")
    for file in (*_dated(path.parent, own), *_dated(folder, BACKGROUND_LOG)):
        age = now.replace(tzinfo=None) - datetime.combine(file.day, time.max)
        if age.total_seconds() > keep:
            try:
                file.path.unlink(missing_ok=True)
            except OSError as error:
                log.warning(f"{file.path} could not be deleted: {error.strerror or error}")


def has_partial_last_line(path: Path) -> bool:
    """Whether the last line is incomplete, because the disk was full or the writer was killed."""
    with suppress(FileNotFoundError):  # another process may set it aside
        if path.exists():
            with lock(path, exclusive=True):  # a line that is being written only looks incomplete
                return tail(path)[-1:] not in (b"", b"\n")
    return False


def _last_day(path: Path, zone: tzinfo | None) -> date:
    """The latest local day among the last entries, else that of the last change.

    Not the last entry's: a clock that was set back for a while would make the file look outdated.
    """
    days = []
    for line in tail(path).splitlines():
        with suppress(ValueError, OverflowError):
            days.append(msgspec.json.decode(line, type=_Stamp).ts.astimezone(zone).date())
    return max(days) if days else datetime.fromtimestamp(path.stat().st_mtime, zone).date()


def tail(path: Path) -> bytes:
    """The last TAIL bytes. Raises OSError, also for a pipe, whose reading would block without end."""
    if not path.is_file():
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
        return file.read()


def free_name(path: Path, day: date) -> Path:
    number = 1
    while True:
        numbered = f".{number}" if number > 1 else ""
        file = path.with_name(f"{path.stem}-{day}{numbered}{path.suffix}")
        # In this order: a file is gone only after its archive is there.
        if not file.exists() and not file.with_name(f"{file.name}.gz").exists():
            return file
        number += 1


def _own_names(path: Path) -> re.Pattern[str]:
    return re.compile(rf"{re.escape(path.stem)}{DATED}{re.escape(path.suffix)}(?:\.gz)?")


def _dated(folder: Path, names: re.Pattern[str]) -> Iterator[RotatedFile]:
    try:
        files = list(folder.iterdir())
    except OSError:  # nothing was recorded yet, or nothing can be: the next write logs it
        return
    for file in files:
        if match := names.fullmatch(file.name):
            with suppress(ValueError):  # no day of any calendar
                yield RotatedFile(date.fromisoformat(match["day"]), int(match["number"] or 1), file)


def _compress(plain: Path) -> None:
    archive = plain.with_name(f"{plain.name}.gz")
    handle, name = tempfile.mkstemp(prefix=f"{archive.name}.", suffix=".tmp", dir=plain.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as target, plain.open("rb") as source:
            with gzip.GzipFile(plain.name, "wb", fileobj=target) as packed:
                shutil.copyfileobj(source, packed)
            target.flush()
            os.fsync(target.fileno())
        temporary.replace(archive)
    finally:
        temporary.unlink(missing_ok=True)
    plain.unlink(missing_ok=True)
