"""Reading the request log back."""

import gzip
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from io import BufferedIOBase, BytesIO
from itertools import chain
from pathlib import Path

import msgspec

from signalbox.record.entry import Entry
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
