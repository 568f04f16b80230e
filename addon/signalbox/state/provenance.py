"""Stores which provider issued which thinking block, beyond the end of the process and for several routers.

Requests use the copy in memory; the event loop never waits for the file. A thread writes what this router
learns to `learned.sqlite`, and reads what other routers with the same state folder have written.

Another router must know a block before the client's next request is routed there. So the bytes that end a
block are sent to the client after the block is written (`written`), and a request with thinking in its
history is routed after the file has been read (`refreshed`). Only that stream waits, usually for some
milliseconds and never longer than WAIT; after that an unknown block counts as one of unknown origin (the
contract, section 5).

If the ledger is in PostgreSQL, routers on many machines share the issuers through it in the same way: another
thread writes what this router learns, and reads what the others have written. While the database is
unavailable, each router uses its own file.
"""

import asyncio
import logging
import os
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from signalbox.anthropic.issued import ThinkingBlock
from signalbox.database_errors import DatabaseError
from signalbox.state.learned_db import LearnedDatabase
from signalbox.state.worker import Worker

if TYPE_CHECKING:
    from signalbox.state.shared import SharedIssuers

log = logging.getLogger("signalbox")

LIMIT = 200_000
"""Blocks remembered; the oldest are forgotten first."""
WAIT = 0.05
"""Seconds that one stream waits for the file at most."""
LOCK_TIMEOUT = 1.0
"""Seconds that a write waits for another router."""
RETRY = 1.0
"""Seconds after which a failed write is tried again."""
START_TIMEOUT = 5.0
"""Seconds that the start waits for the file to be read."""
SHARED_TIMEOUT = 2.0
"""Seconds that the start waits until the shared database is read."""
CLOSE_TIMEOUT = 5.0
"""Seconds that the end waits for the last write."""

SETTLE = 0.1
"""Seconds after a write in which readers may not see it yet, or another write may leave size and modification
time unchanged. The files are read once more after that."""

_PAGE = 1000
"""Rows that are read into memory at once."""
_KEY = "SELECT key FROM issued_key"
_NEW_ROWS = "SELECT number, digest, provider FROM issued WHERE number > ? ORDER BY number"
_LEARN = "INSERT OR IGNORE INTO issued (digest, provider) VALUES (?, ?)"
_FORGET = "DELETE FROM issued WHERE number <= (SELECT max(number) FROM issued) - ?"

type _Learned = tuple[bytes, str]


class _FileState(NamedTuple):
    """A value that changes with every write to the database."""

    changed: float
    """When it was last written, Unix seconds."""
    files: tuple[tuple[int, int, int] | None, ...]
    """Inode, size and modification time of the database and of its write-ahead log, which may be absent."""


def _file_state(file: Path) -> _FileState | None:
    """The current state; None if there is no database."""
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
    """The issuers of thinking blocks, for one router. No method but `close` blocks the event loop.

    The provider that is recorded first as the issuer of a block stays the issuer: two providers may write the
    same unsigned text, and a history must be read in the same way for each request.
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
        """The key for digests. It is made with the file and lost with it."""
        self._limit = limit
        self._lock_timeout = lock_timeout
        self._retry = retry
        self._lock = threading.Lock()
        """Guards the next four, which the worker shares with the event loop."""
        self._issuers: OrderedDict[bytes, str] = OrderedDict()
        self._unwritten: list[_Learned] = []
        self._learned = 0
        """The number of blocks learned."""
        self._tried = 0
        """How many of them were written, or could not be."""
        # For the worker alone:
        self._database = LearnedDatabase(folder)
        self._has_key = False
        """Whether the file has a key: this router's, or one that was there before."""
        self._reader: sqlite3.Connection | None = None
        self._inode = self._version = self._last_row = 0
        """Inode of the file that is read, `data_version` when it was read, and number of the last row
        read."""
        self._read_state: _FileState | None = None
        """State of the files when everything was read; None if they may have changed since. Set by the
        worker, read by the event loop."""
        # For the thread of the shared database:
        self._shared: SharedIssuers | None = None
        self._in_force: str | None = None
        """The database that the thread uses."""
        self._shared_row = 0
        """Number of the last row read from it."""
        # Of the shared database, for all threads:
        self._url: str | None = None
        """The database to use."""
        self._is_away = False
        self._is_shared = threading.Event()
        self._unshared: list[_Learned] = []
        self._sharer = Worker("signalbox-shared-provenance", self._share)
        self._is_read = threading.Event()
        self._worker = Worker("signalbox-provenance", self._sync)
        self._worker.wake()
        self._is_read.wait(START_TIMEOUT)

    def issuer_of(self, block: ThinkingBlock) -> str | None:
        """The provider that issued the block; None if unknown. May be called in any thread."""
        digest = block.digest(self.key)
        return None if digest is None else self.issuer(digest)

    def issuer(self, digest: bytes) -> str | None:
        return self._issuers.get(digest)

    def learn(self, digests: Sequence[bytes], provider: str) -> None:
        """Records that `provider` issued these blocks: in memory now, in the file soon."""
        with self._lock:
            new = [(digest, provider) for digest in digests if digest not in self._issuers]
            for digest, _ in new:
                self._remember(digest, provider)
            self._unwritten = (self._unwritten + new)[-self._limit :]
            self._learned += len(new)
            if self._url is not None:
                self._unshared = (self._unshared + new)[-self._limit :]
        if new:
            self._worker.wake()
        if new and self._url is not None:
            self._sharer.wake()

    @property
    def is_written(self) -> bool:
        """Whether other routers can read everything learned, or it cannot be written now."""
        return self._tried >= self._learned and (not self._unshared or self._is_away)

    async def written(self) -> None:
        """Waits until other routers can read everything learned."""
        waits = [] if self._tried >= self._learned else [self._worker.ran(WAIT)]
        if self._unshared and not self._is_away:
            waits.append(self._sharer.ran(WAIT))
        await asyncio.gather(*waits)

    async def refreshed(self) -> None:
        """Waits until everything that other routers have written so far is read."""
        waits = [] if self._is_file_read else [self._worker.ran(WAIT)]
        if self._url is not None and not self._is_away:
            waits.append(self._sharer.ran(WAIT))
        await asyncio.gather(*waits)

    @property
    def is_current(self) -> bool:
        """Whether nothing was written since it was last read. False if there is a shared database, which must
        be queried."""
        return (self._url is None or self._is_away) and self._is_file_read

    @property
    def _is_file_read(self) -> bool:
        """Whether nothing was written since the file was last read.

        Costs two calls of `stat`, a few microseconds; a run of the worker costs a hundred. False while the
        worker runs; then the disk, which may hang, is not touched.
        """
        read = self._read_state
        return read is not None and not self._worker.is_busy and read == _file_state(self._database.file)

    def close(self) -> None:
        """Writes what is not written yet; gives up after CLOSE_TIMEOUT. The store can still be used: answers
        in flight while router.py is reloaded still learn."""
        if self._url is not None:
            self._sharer.close(CLOSE_TIMEOUT)
        self._worker.close(CLOSE_TIMEOUT)

    def follow(self, url: str | None) -> None:
        """Uses this shared database from now on; None: shares only with routers of the same folder."""
        if url != self._url:
            self._url, self._is_away = url, False
            self._is_shared.clear()
            self._sharer.wake()

    def ready(self, timeout: float = SHARED_TIMEOUT) -> None:
        """Waits until the shared database is read for the first time, or is unavailable."""
        if self._url is not None:
            self._is_shared.wait(timeout)

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
        """Writes what was learned. Returns whether nothing is left to write."""
        with self._lock:
            batch, self._unwritten = self._unwritten, []
            learned = self._learned

        def write(database: sqlite3.Connection) -> None:
            if self._in_force is not None and database.execute(_KEY).fetchone() != (self.key,):
                database.execute("DELETE FROM issued")  # of the key before
                database.execute("INSERT OR REPLACE INTO issued_key VALUES (1, ?)", (self.key,))
            elif database.execute(_KEY).fetchone() is None:
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
        """Reads what was written since the last call. Costs a `stat` and one PRAGMA if there is nothing
        new."""
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
        """Reads new rows into memory. Where file and memory differ, the file is right."""
        for (key,) in reader.execute(_KEY):
            if key != self.key and self._in_force is not None:
                return  # the key of the shared database is about to be written
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

    # in the thread of the shared database

    def _share(self, is_last: bool) -> float | None:
        """Writes new blocks to the shared database, and reads those of other routers."""
        url = self._url
        if self._shared is not None and url != self._in_force:
            self._shared.close()
            self._shared = None
        if url is None:
            self._in_force = None
            return None
        if self._shared is None:
            from signalbox.state.shared import SharedIssuers  # slow to import

            self._shared, self._in_force, self._shared_row = SharedIssuers(url), url, 0
        with self._lock:
            batch, self._unshared = self._unshared, []
        try:
            if not self._shared_row:
                self._adopt(self._shared.key(self.key))
            if batch:
                self._shared.learn(batch, self._limit)
            for page in self._shared.after(self._shared_row):
                self._take(page)
        except DatabaseError as error:
            with self._lock:
                self._unshared = (batch + self._unshared)[-self._limit :]
            if not self._is_away:
                log.warning("%s: %s: who issued thinking is not shared meanwhile", self._shared.shown, error)
            self._is_away = True
            self._is_shared.set()
            return self._retry
        if self._is_away:
            log.info("%s: who issued thinking is shared again", self._shared.shown)
        self._is_away = False
        self._is_shared.set()
        if is_last:
            self._shared.close()
            self._shared = None
        return None

    def _adopt(self, key: bytes) -> None:
        """Uses this key for digests from now on. Digests under the previous key are dropped."""
        if key != self.key:
            with self._lock:
                self.key, self._has_key = key, False
                self._issuers.clear()
                self._unwritten, self._unshared = [], []
            self._worker.wake()

    def _take(self, page: Sequence[tuple[int, bytes, str]]) -> None:
        """Stores rows of the shared database, also for a start while it is unavailable."""
        with self._lock:
            for _, digest, provider in page:
                if self._issuers.get(digest) != provider:
                    self._remember(digest, provider)
                    self._unwritten.append((digest, provider))
        self._shared_row = page[-1][0]
        self._worker.wake()
