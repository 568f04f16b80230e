"""Requests that are not in the ledger yet, in an append-only file that survives a SIGKILL.

Each router has a file of its own, `spool-ID.jsonl`, whose lines are `{"number": ..., "entry": {...}}`. The
ledger stores, in the transaction of the rows, the number up to which it has them: none is lost, none is
doubled. The next router that starts reads the files of routers that are gone (`orphans`) and writes what is
missing.
"""

import errno
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

import msgspec

from signalbox.record.entry import Entry, encodable
from signalbox.record.rotation import is_at

if sys.platform != "win32":
    import fcntl
else:
    _FAR = 2**31 - 2
    """A place behind all lines of a spool."""

NAMES = "spool-*.jsonl"
TRIMMED = 1024 * 1024
"""Bytes from which on the file is emptied once the ledger has all of it."""

TAKEN = 5.0
"""Seconds for which a router that starts may hold a spool that has just been made."""

type Numbered = tuple[int, Entry]


class _Line(msgspec.Struct):
    number: int
    entry: Entry


class Spool:
    """The file of this router; it is made with the first entry. All methods raise OSError."""

    def __init__(self, folder: Path) -> None:
        self.name = token_hex(8)
        self._path = _path(folder, self.name)
        self._file: int | None = None
        self._size = 0

    def append(self, entries: Sequence[Numbered]) -> None:
        if self._file is None:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = _made(self._path)
        data = b"".join(_line(number, entry) for number, entry in entries)
        while data:
            written = os.write(self._file, data)
            self._size += written
            data = data[written:]

    def is_long(self) -> bool:
        return self._size > TRIMMED

    def empty(self) -> None:
        """Empty the file, because the ledger has all of it."""
        if self._file is not None:
            os.ftruncate(self._file, 0)
            self._size = 0

    def close(self, *, remove: bool) -> None:
        if self._file is not None:
            if remove and sys.platform != "win32":  # before another router takes it for an orphan
                self._path.unlink(missing_ok=True)
            os.close(self._file)
            if remove and sys.platform == "win32":
                self._path.unlink(missing_ok=True)
            self._file, self._size = None, 0


class Orphan(msgspec.Struct):
    """The spool of a router that is gone, locked until `release`."""

    path: Path
    file: int

    @property
    def name(self) -> str:
        return self.path.stem.removeprefix("spool-")

    def entries(self) -> Iterator[Numbered]:
        """In their order. Incomplete lines are ignored. Raises OSError."""
        os.lseek(self.file, 0, os.SEEK_SET)
        return _entries(os.dup(self.file))

    def release(self, *, remove: bool) -> None:
        if remove:
            with suppress(OSError):
                self.path.unlink()
        os.close(self.file)


def orphans(folder: Path) -> Iterator[Orphan]:
    """Spools of routers that are gone, locked. Raises OSError."""
    for path in sorted(folder.glob(NAMES)):
        try:
            file = os.open(path, os.O_RDWR | getattr(os, "O_NONBLOCK", 0))
        except OSError:
            continue  # another router took it, or it is no file
        if _lock(file) and is_at(file, path):
            yield Orphan(path, file)
        else:
            os.close(file)


def spooled(folder: Path, name: str, after: int) -> Iterator[Numbered]:
    """The entries of a running router's spool that come after this number. Raises OSError."""
    file = os.open(_path(folder, name), os.O_RDONLY)
    return (numbered for numbered in _entries(file) if numbered[0] > after)


def _path(folder: Path, name: str) -> Path:
    return folder / f"spool-{name}.jsonl"


def _made(path: Path) -> int:
    """The file, opened and locked. Before it is locked a router that starts may take it for an orphan, which
    it locks for a moment and removes: then another one is made. Raises OSError."""
    ends = time.monotonic() + TAKEN
    while True:
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        if _lock(file) and is_at(file, path):
            return file
        os.close(file)
        if time.monotonic() > ends:
            raise TimeoutError(errno.ETIMEDOUT, "another router holds the spool")
        time.sleep(0.01)


def _entries(file: int) -> Iterator[Numbered]:
    with os.fdopen(file, "rb") as lines:
        for line in lines:
            with suppress(ValueError):
                decoded = msgspec.json.decode(line, type=_Line)
                yield decoded.number, decoded.entry


def _line(number: int, entry: Entry) -> bytes:
    """Without the fields for the console only: prompts are written to no file."""
    written = msgspec.structs.replace(entry, snippet="", why="", passed="", peer="")
    try:
        return msgspec.json.encode(_Line(number, written)) + b"\n"
    except UnicodeEncodeError:  # a header with bytes that are no UTF-8 gives lone surrogates
        return (
            msgspec.json.encode({"number": number, "entry": encodable(msgspec.to_builtins(written))}) + b"\n"
        )


def _lock(file: int) -> bool:
    """Lock the file, until the process ends at the latest; whether that succeeded."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(file, _FAR, os.SEEK_SET)  # what is locked cannot be read
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
