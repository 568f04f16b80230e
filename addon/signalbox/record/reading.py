"""Reading back what was recorded, from the ledger and from the request log."""

import gzip
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from io import BufferedIOBase, BytesIO
from itertools import chain
from pathlib import Path

import msgspec

from signalbox.record.database import FILE
from signalbox.record.entry import RECORDED, Entry
from signalbox.record.turnover import set_aside_files


def entries(
    folder: Path,
    file: str,
    since: datetime | None = None,
    on_broken: Callable[[], None] = lambda: None,
) -> Iterator[Entry]:
    """What is recorded, oldest file first, archives included; of `since` (aware) and later, if given.

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


def recorded(
    folder: Path,
    file: str,
    since: datetime | None = None,
    on_broken: Callable[[], None] = lambda: None,
) -> Iterator[Entry]:
    """What the ledger in `folder` holds, and of the log what is older than all of that.

    A router may be writing meanwhile. Raises OSError and sqlite3.Error where either may not be read.
    """
    ledger = folder / FILE
    begins: datetime | None = None
    if ledger.exists():
        with closing(sqlite3.connect(f"{ledger.resolve().as_uri()}?mode=ro", uri=True)) as database:
            begins = _first(database)
            yield from _older_than(begins, entries(folder, file, since, on_broken))
            if begins is not None:
                yield from _rows(database, since)
    else:
        yield from entries(folder, file, since, on_broken)


def _older_than(moment: datetime | None, found: Iterator[Entry]) -> Iterator[Entry]:
    return (entry for entry in found if moment is None or entry.ts < moment)


def _first(database: sqlite3.Connection) -> datetime | None:
    try:
        (milliseconds,) = database.execute("SELECT min(ts) FROM requests").fetchone()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):  # its router has only just made the file
            return None
        raise
    return None if milliseconds is None else _moment(milliseconds)


def _rows(database: sqlite3.Connection, since: datetime | None) -> Iterator[Entry]:
    moment = 0 if since is None else int(since.timestamp() * 1000)
    query = f"SELECT {', '.join(RECORDED)} FROM requests WHERE ts >= ? ORDER BY ts"  # noqa: S608 (our names)
    for row in database.execute(query, (moment,)):
        fields = dict(zip(RECORDED, row, strict=True))
        yield Entry(**fields | {"ts": _moment(fields["ts"])})


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _snapshot(path: Path) -> tuple[list[Path], BufferedIOBase]:
    """The files set aside and the current one, opened, as they were at one moment.

    The log may be turned over at any time: listed before or after, its file would be read twice or never.
    """
    while True:
        older = set_aside_files(path)
        current = _current(path)
        if [(file.day, file.number) for file in set_aside_files(path)] == [(f.day, f.number) for f in older]:
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
        return  # deleted meanwhile, as it was outdated
    except (gzip.BadGzipFile, EOFError, zlib.error):
        on_broken()


def _older(path: Path) -> BufferedIOBase:
    if path.suffix != ".gz":
        with suppress(FileNotFoundError):  # compressed meanwhile
            return path.open("rb")
        path = path.with_name(f"{path.name}.gz")
    return gzip.open(path)
