"""Which provider issued which thinking block, remembered from one start to the next.

In memory for the requests, and in a file that routers with the same state folder share. The file is a help
only: where it is lost, or cannot be read or written, a router knows what it learned itself.
"""

import logging
import os
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from queue import Empty, SimpleQueue

from signalbox.messages.issued import Block

log = logging.getLogger("signalbox")

FILE = "learned.sqlite"
MOST = 200_000
"""Blocks remembered; beyond that the oldest are forgotten."""
EVERY = 3.0
"""Seconds between two looks at what other routers learned."""
PATIENCE = 1.0
"""Seconds between two such looks because a block is unknown; the request waits for these."""
BUSY = 5.0
"""Seconds that a write waits for another router's."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS issued (number INTEGER PRIMARY KEY, digest BLOB UNIQUE, provider TEXT);
CREATE TABLE IF NOT EXISTS issued_key (one INTEGER PRIMARY KEY CHECK (one = 1), key BLOB);
"""
_NEWS = "SELECT number, digest, provider FROM issued WHERE number > ? ORDER BY number"
_LEARN = "INSERT OR IGNORE INTO issued (digest, provider) VALUES (?, ?)"
_FORGET = "DELETE FROM issued WHERE number <= (SELECT max(number) FROM issued) - ?"

type _Learned = tuple[bytes, str]


class Issued:
    """The memory of one router; all but `close` are made for its event loop.

    Whoever is first said to have issued a block has issued it: two providers may write the same unsigned
    text, and a history must not read otherwise from one request to the next.
    """

    def __init__(
        self, folder: Path, *, most: int = MOST, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.key = os.urandom(32)
        """What digests are made under. Made with the file, and lost with it."""
        self._file = folder / FILE
        self._most = most
        self._clock = clock
        self._looked = clock()
        self._known: OrderedDict[bytes, str] = OrderedDict()
        self._seen = 0
        """Number of the last row read."""
        self._queue: SimpleQueue[Sequence[_Learned] | None] = SimpleQueue()
        self._writer = threading.Thread(target=self._write_behind, name="signalbox-issued", daemon=True)
        self._connection: sqlite3.Connection | None = None
        try:
            self._connection = self._open()
            self._writer.start()
        except (sqlite3.Error, OSError) as fault:
            self._tell(fault)

    def issuer_of(self, block: Block) -> str | None:
        """The provider that issued it, as far as that is known."""
        digest = block.digest(self.key)
        return None if digest is None else self.issuer(digest)

    def issuer(self, digest: bytes) -> str | None:
        if digest not in self._known:
            self._look()
        return self._known.get(digest)

    def learn(self, digests: Sequence[bytes], provider: str) -> None:
        new = [(digest, provider) for digest in digests if digest not in self._known]
        for digest, _ in new:
            self._note(digest, provider)
        if new and self._writer.is_alive():
            self._queue.put(new)

    def close(self) -> None:
        """Returns when all is written."""
        if self._writer.is_alive():
            self._queue.put(None)
            self._writer.join()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> sqlite3.Connection:
        os.close(os.open(self._file, os.O_RDWR | os.O_CREAT, 0o600))
        connection = self._connect()
        try:
            with suppress(sqlite3.OperationalError):  # locked: another router is about to do the same
                connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(_SCHEMA)
            with connection:
                connection.execute("INSERT OR IGNORE INTO issued_key VALUES (1, ?)", (self.key,))
            (self.key,) = connection.execute("SELECT key FROM issued_key").fetchone()
            self._read(connection)
            connection.execute("PRAGMA busy_timeout = 0")  # requests wait for it from now on
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._file, timeout=BUSY)

    def _look(self) -> None:
        """Another router may have issued it a moment ago. Faults are the thread's to tell."""
        if self._connection is None or self._clock() - self._looked < PATIENCE:
            return
        self._looked = self._clock()
        with suppress(sqlite3.Error):
            self._read(self._connection)

    def _read(self, connection: sqlite3.Connection) -> None:
        """What was written since the last time; the file is right where memory says otherwise."""
        for number, digest, provider in connection.execute(_NEWS, (self._seen,)):
            self._note(digest, provider)
            self._seen = number

    def _note(self, digest: bytes, provider: str) -> None:
        self._known[digest] = provider
        while len(self._known) > self._most:
            self._known.popitem(last=False)

    def _tell(self, fault: Exception) -> None:
        log.warning("%s: %s: who issued which thinking is remembered until the end only", self._file, fault)

    # in the thread

    def _write_behind(self) -> None:
        closed = False
        try:
            with closing(self._connect()) as connection:
                connection.execute("PRAGMA synchronous = NORMAL")
                while not closed:
                    learned, closed = self._waiting()
                    if learned:
                        self._write(connection, learned)
                    self._read(connection)
        except sqlite3.Error as fault:
            self._tell(fault)

    def _waiting(self) -> tuple[list[_Learned], bool]:
        """What was learned since the last time, and whether that is all there will be."""
        learned: list[_Learned] = []
        try:
            item = self._queue.get(timeout=EVERY)
            while item is not None:
                learned += item
                item = self._queue.get_nowait()
        except Empty:
            return learned, False
        return learned, True

    def _write(self, connection: sqlite3.Connection, learned: list[_Learned]) -> None:
        with connection:
            connection.executemany(_LEARN, learned)
            connection.execute(_FORGET, (self._most,))
