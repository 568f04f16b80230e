"""Which provider issued which thinking block, remembered from one start to the next.

In memory for the requests, and in a file that routers with the same state folder share.
"""

import os
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue

from signalbox.config import files
from signalbox.messages.issued import Block
from signalbox.state.learned_db import LearnedDatabase

MOST = 200_000
"""Blocks remembered; beyond that the oldest are forgotten."""
BUSY = 1.0
"""Seconds that a write waits for another router's."""
SOON = 0.05
"""Seconds that an answer waits at most for its blocks to be written. Mostly a fraction of a millisecond is
enough, and then any router with this file knows them before the client does."""
LAST = 5.0
"""Seconds that the end waits for a disk."""
AGAIN = 1.0
"""Seconds after which a write that failed is tried again."""

_KEY = "SELECT key FROM issued_key"
_NEWS = "SELECT number, digest, provider FROM issued WHERE number > ? ORDER BY number"
_LEARN = "INSERT OR IGNORE INTO issued (digest, provider) VALUES (?, ?)"
_FORGET = "DELETE FROM issued WHERE number <= (SELECT max(number) FROM issued) - ?"

type _Learned = tuple[bytes, str]
type _Batch = tuple[Sequence[_Learned], threading.Event]
"""What to write, and what tells that this was tried."""


class ProvenanceStore:
    """The memory of one router, for its event loop; a thread writes to the file.

    Whoever is first said to have issued a block has issued it: two providers may write the same unsigned
    text, and a history must not read otherwise from one request to the next.
    """

    def __init__(self, folder: Path, *, most: int = MOST) -> None:
        self.key = os.urandom(32)
        """What digests are made under. Made with the file, and lost with it."""
        self._most = most
        self._known: OrderedDict[bytes, str] = OrderedDict()
        self._shared = LearnedDatabase(folder)
        self._reader: sqlite3.Connection | None = None
        self._inode = self._version = self._seen = 0
        """Of the file that is read, of what was read, and the number of its last row."""
        self._tried = threading.Event()
        """Set once what was learned last was written, or could not be."""
        self._tried.set()
        self._queue: SimpleQueue[_Batch | None] = SimpleQueue()
        with suppress(TimeoutError):
            files.within(self._shared.file, lambda: self._shared.transact(self._found, wait=BUSY))
        self.refresh()
        self.resume()

    def resume(self) -> None:
        """Write again after `close`: answers that were under way learn from the same memory as before."""
        self._writer = threading.Thread(target=self._write_behind, name="signalbox-issued", daemon=True)
        self._writer.start()

    def issuer_of(self, block: Block) -> str | None:
        """The provider that issued it, as far as that is known. May be asked in any thread."""
        digest = block.digest(self.key)
        return None if digest is None else self.issuer(digest)

    def issuer(self, digest: bytes) -> str | None:
        return self._known.get(digest)

    def learn(self, digests: Sequence[bytes], provider: str) -> None:
        new = [(digest, provider) for digest in digests if digest not in self._known]
        for digest, _ in new:
            self._note(digest, provider)
        if new:
            before, self._tried = self._tried, threading.Event()
            self._queue.put((new, self._tried))
            if before.is_set() and self._writer.is_alive():  # else the disk is slow: nobody waits again
                self._tried.wait(SOON)

    def refresh(self) -> None:
        """Know what other routers have written by now. Takes little where that is nothing, and waits for no
        disk for long; faults are the writer's to tell."""
        with suppress(sqlite3.Error, OSError):
            files.within(self._shared.file, self._refresh, files.SOON)

    def _refresh(self) -> None:
        inode = self._shared.file.stat().st_ino
        if self._reader is None or inode != self._inode:  # the file was lost or set aside
            self._stop_reading()
            self._reader = sqlite3.connect(self._shared.file, timeout=0, check_same_thread=False)
            self._inode, self._version, self._seen = inode, 0, 0
        (version,) = self._reader.execute("PRAGMA data_version").fetchone()
        if version != self._version:
            self._read(self._reader)
            self._version = version

    def close(self) -> None:
        """Returns when all is written, or cannot be, or after LAST. What is learned after that waits until
        `resume`."""
        if self._writer.is_alive():
            self._queue.put(None)
            self._writer.join(LAST)
        self._stop_reading()

    def _stop_reading(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _read(self, reader: sqlite3.Connection) -> None:
        """What was written since the last time; the file is right where memory says otherwise."""
        for (key,) in reader.execute(_KEY):
            if key != self.key:
                self.key = key
                self._known.clear()
        for number, digest, provider in reader.execute(_NEWS, (self._seen,)):
            self._note(digest, provider)
            self._seen = number

    def _note(self, digest: bytes, provider: str) -> None:
        self._known[digest] = provider
        while len(self._known) > self._most:
            self._known.popitem(last=False)

    def _found(self, database: sqlite3.Connection) -> None:
        """Whoever comes first gives all of them the key."""
        if database.execute(_KEY).fetchone() is None:
            database.execute("INSERT OR IGNORE INTO issued_key VALUES (1, ?)", (self.key,))

    # in the thread

    def _write_behind(self) -> None:
        pending: list[_Learned] = []
        closed = False

        def write(database: sqlite3.Connection) -> None:
            self._found(database)
            database.executemany(_LEARN, pending)
            database.execute(_FORGET, (self._most,))

        while not closed:
            batches, closed = self._waiting(AGAIN if pending else None)
            pending += (learned for batch, _ in batches for learned in batch)
            if pending and self._shared.transact(write, wait=BUSY):
                pending.clear()
            del pending[: -self._most]
            for _, tried in batches:
                tried.set()

    def _waiting(self, timeout: float | None) -> tuple[list[_Batch], bool]:
        """What was learned since the last time, and whether that is all there will be."""
        batches: list[_Batch] = []
        with suppress(Empty):
            item = self._queue.get(timeout=timeout)
            while item is not None:
                batches.append(item)
                item = self._queue.get_nowait()
            return batches, True
        return batches, False
