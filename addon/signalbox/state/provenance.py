"""Which provider issued which thinking block: a memory that outlives the process and that routers share.

Requests use the memory alone; the event loop never waits for the file. A thread writes what this router
learns to `learned.sqlite`, and reads what other routers with the same state folder have written.

Another router must know a block before the client's next request is routed there. So the bytes that end a
block go to the client once the block is written (`written`), and a request whose history holds thinking is
routed once the file has been read (`refreshed`). Only that stream waits, mostly some milliseconds, and never
longer than WAIT: a block that is not known is treated like one of unknown origin (the contract, section 5).
"""

import os
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from signalbox.anthropic.issued import ThinkingBlock
from signalbox.state.learned_db import LearnedDatabase
from signalbox.state.worker import Worker

LIMIT = 200_000
"""Blocks remembered; the oldest are forgotten first."""
WAIT = 0.05
"""Seconds that one stream waits for the file at the most. Nothing waits for a disk that is slower."""
LOCK_TIMEOUT = 1.0
"""Seconds that a write waits for another router's."""
RETRY = 1.0
"""Seconds until a write that failed is tried again."""
START_TIMEOUT = 5.0
"""Seconds that the start waits for the file to be read."""
CLOSE_TIMEOUT = 5.0
"""Seconds that the end waits for the last write."""

SETTLE = 0.1
"""Seconds for which a write may not be visible to readers yet, or be followed by another one that leaves
size and modification time as they are. The files are read once more after that."""

_PAGE = 1000
"""Rows that are taken into memory at once."""
_KEY = "SELECT key FROM issued_key"
_NEW_ROWS = "SELECT number, digest, provider FROM issued WHERE number > ? ORDER BY number"
_LEARN = "INSERT OR IGNORE INTO issued (digest, provider) VALUES (?, ?)"
_FORGET = "DELETE FROM issued WHERE number <= (SELECT max(number) FROM issued) - ?"

type _Learned = tuple[bytes, str]


class _FileState(NamedTuple):
    """Changes with every write to the database."""

    changed: float
    """When it was last written, Unix seconds."""
    files: tuple[tuple[int, int, int] | None, ...]
    """Inode, size and modification time of the database and of its write-ahead log, which may be absent."""


def _file_state(file: Path) -> _FileState | None:
    """None where there is no database."""
    found: list[os.stat_result | None] = []
    for path in (file, file.with_name(f"{file.name}-wal")):
        try:
            found.append(path.stat())
        except OSError:
            found.append(None)
    if found[0] is None:
        return None
    return _FileState(
        max(stat.st_mtime for stat in found if stat is not None),
        tuple(None if stat is None else (stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in found),
    )


class ProvenanceStore:
    """The issuers of one router's thinking blocks. All methods but `close` leave the event loop free.

    The provider that is first recorded as a block's issuer stays it: two providers may write the same
    unsigned text, and a history must be read the same way in each request.
    """

    def __init__(
        self,
        folder: Path,
        *,
        limit: int = LIMIT,
        lock_timeout: float = LOCK_TIMEOUT,
        retry: float = RETRY,
    ) -> None:
        self.key = os.urandom(32)
        """Digests are made under this key. It is made with the file, and lost with it."""
        self._limit = limit
        self._lock_timeout = lock_timeout
        self._retry = retry
        self._lock = threading.Lock()
        """Of what the worker shares with the event loop, which are the next four."""
        self._issuers: OrderedDict[bytes, str] = OrderedDict()
        self._unwritten: list[_Learned] = []
        self._learned = 0
        """How many blocks were learned, and how many of them were written, or could not be."""
        self._tried = 0
        # For the worker alone:
        self._database = LearnedDatabase(folder)
        self._has_key = False
        """Whether the file was given this router's key, or had one."""
        self._reader: sqlite3.Connection | None = None
        self._inode = self._version = self._last_row = 0
        """Of the file that is read; of what was read of it; the number of its last row."""
        self._read_state: _FileState | None = None
        """State of the files of which everything was read; None while they may have changed since. Set by the
        worker, read by the event loop."""
        self._is_read = threading.Event()
        self._worker = Worker("signalbox-provenance", self._sync)
        self._worker.wake()
        self._is_read.wait(START_TIMEOUT)

    def issuer_of(self, block: ThinkingBlock) -> str | None:
        """The provider that issued the block; None where that is not known. May be called in any thread."""
        digest = block.digest(self.key)
        return None if digest is None else self.issuer(digest)

    def issuer(self, digest: bytes) -> str | None:
        return self._issuers.get(digest)

    def learn(self, digests: Sequence[bytes], provider: str) -> None:
        """Record that `provider` issued these blocks: in memory now, in the file soon."""
        with self._lock:
            new = [(digest, provider) for digest in digests if digest not in self._issuers]
            for digest, _ in new:
                self._remember(digest, provider)
            self._unwritten = (self._unwritten + new)[-self._limit :]
            self._learned += len(new)
        if new:
            self._worker.wake()

    @property
    def is_written(self) -> bool:
        """Whether all that was learned is in the file, or cannot be written now."""
        return self._tried >= self._learned

    async def written(self) -> None:
        """Wait until all that was learned is in the file, so that other routers can know it."""
        if not self.is_written:
            await self._worker.ran(WAIT)

    async def refreshed(self) -> None:
        """Wait until all is known that other routers have written so far."""
        if not self.is_current:
            await self._worker.ran(WAIT)

    @property
    def is_current(self) -> bool:
        """Whether nothing was written since the file was last read.

        Costs two calls of `stat`, a few microseconds; a run of the worker costs a hundred. False while the
        worker runs, without a look at a disk that may hang.
        """
        read = self._read_state
        return read is not None and not self._worker.is_busy and read == _file_state(self._database.file)

    def close(self) -> None:
        """Write what is not written yet; gives up after CLOSE_TIMEOUT. The store can be used on: answers
        that are in flight when router.py is loaded again still learn."""
        self._worker.close(CLOSE_TIMEOUT)

    def _remember(self, digest: bytes, provider: str) -> None:
        self._issuers[digest] = provider
        while len(self._issuers) > self._limit:
            self._issuers.popitem(last=False)

    # in the worker's thread

    def _sync(self, is_last: bool) -> float | None:
        is_written = self._write()
        state = _file_state(self._database.file)
        age = time.time() - state.changed if state is not None else -1.0
        is_recent = 0 <= age < SETTLE
        try:
            self._read_new()
        except (sqlite3.Error, OSError):  # a failing write is logged
            age, is_recent = -1.0, False
        self._read_state = state if age >= SETTLE else None
        self._is_read.set()
        if is_last:
            self._stop_reading()
        if not is_written:
            return self._retry
        return SETTLE if is_recent else None

    def _write(self) -> bool:
        """Whether nothing is left to write."""
        with self._lock:
            batch, self._unwritten = self._unwritten, []
            learned = self._learned

        def write(database: sqlite3.Connection) -> None:
            if database.execute(_KEY).fetchone() is None:
                database.execute("INSERT OR IGNORE INTO issued_key VALUES (1, ?)", (self.key,))
            if batch:
                database.executemany(_LEARN, batch)
                database.execute(_FORGET, (self._limit,))

        is_written = self._has_key and not batch
        if not is_written:
            is_written = self._database.transact(write, wait=self._lock_timeout)
            self._has_key = self._has_key or is_written
        with self._lock:
            self._tried = learned
            if not is_written:
                self._unwritten = (batch + self._unwritten)[-self._limit :]
        return is_written

    def _read_new(self) -> None:
        """Read what was written since the last time. Costs a stat and one PRAGMA where that is nothing."""
        inode = self._database.file.stat().st_ino
        if self._reader is None or inode != self._inode:  # the file was deleted or set aside
            self._stop_reading()
            self._reader = sqlite3.connect(self._database.file, timeout=0)
            self._inode, self._version, self._last_row = inode, 0, 0
        (version,) = self._reader.execute("PRAGMA data_version").fetchone()
        if version != self._version:
            self._read(self._reader)
            self._version = version

    def _read(self, reader: sqlite3.Connection) -> None:
        """Take new rows into memory, where the file differs from memory the file is right."""
        for (key,) in reader.execute(_KEY):
            if key != self.key:
                with self._lock:
                    self.key = key
                    self._issuers.clear()
        rows = reader.execute(_NEW_ROWS, (self._last_row,))
        while page := rows.fetchmany(_PAGE):
            with self._lock:
                for _, digest, provider in page:
                    self._remember(digest, provider)
            self._last_row = page[-1][0]

    def _stop_reading(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None
