"""Fields and betas that providers rejected: kept for a week, and shared by routers with one state folder.

Requests use the copy in memory and never wait for the file. There are few such facts, so a thread writes the
new ones and reads the whole table every POLL seconds.
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Collection
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from signalbox.state.learned_db import FILE, LearnedDatabase, connect
from signalbox.state.worker import Worker

WEEK = 7 * 86400.0
"""Seconds after which a rejected field is sent again."""
DAY = 86400.0
LIMIT = 1000
"""The newest facts are kept. Bounded, since callers choose the names of models."""
POLL = 3.0
"""Seconds after which the facts of other routers are read again."""
LOCK_TIMEOUT = 1.0
"""Seconds that a write, also that of a command, waits for another process."""
START_TIMEOUT = 2.0
"""Seconds that the start waits for the file to be read."""
CLOSE_TIMEOUT = 3.0
"""Seconds that the end waits for the last write."""

_ALL = "SELECT provider, model, field, at FROM rejected"
_LEARN = "INSERT OR REPLACE INTO rejected (provider, model, field, at) VALUES (?, ?, ?, ?)"
_TRIM = (
    "DELETE FROM rejected"
    " WHERE rowid NOT IN (SELECT rowid FROM rejected ORDER BY at DESC, rowid DESC LIMIT ?)"
)
"""By number, not by age, so that a clock that is wrong for a moment deletes nothing."""
_FORGET = "DELETE FROM rejected WHERE provider = ? AND model = ? AND field = ?"


class Fact(NamedTuple):
    """A field, or a value of `anthropic-beta`, that a provider's model rejected. `at` is in Unix seconds."""

    provider: str
    model: str
    field: str
    at: float


type _Facts = dict[tuple[str, str, str], float]


class UnsupportedStore:
    """The facts of one router. All methods but `close` return at once."""

    def __init__(
        self,
        folder: Path,
        *,
        clock: Callable[[], float] = time.time,
        poll: float = POLL,
        lock_timeout: float = LOCK_TIMEOUT,
    ) -> None:
        """`clock` gives Unix seconds."""
        self._clock = clock
        self._poll = poll
        self._lock_timeout = lock_timeout
        self._lock = threading.Lock()
        """Guards the next two, which the worker shares with the event loop."""
        self._facts: _Facts = {}
        self._unwritten: _Facts = {}
        self._database = LearnedDatabase(folder)
        self._is_read = threading.Event()
        self._worker = Worker("signalbox-unsupported", self._sync)
        self._worker.wake()
        self._is_read.wait(START_TIMEOUT)

    def rejected(self, provider: str, model: str) -> frozenset[str]:
        """Fields and values, as `anthropic.field_paths` and `anthropic.betas` name them."""
        return frozenset(
            fact.field for fact in self.all() if (fact.provider, fact.model) == (provider, model)
        )

    def all(self) -> list[Fact]:
        """Ordered by provider, model and field, without those older than a week."""
        with self._lock:
            known = dict(self._facts)
        return _fresh(known, self._clock())

    def learn(self, provider: str, model: str, fields: Collection[str]) -> None:
        """Records that they were rejected now: in memory at once, in the file soon."""
        new = {(provider, model, field): self._clock() for field in sorted(fields)}
        with self._lock:
            for facts in (self._facts, self._unwritten):
                facts.update(new)
                _trim(facts)
        if new:
            self._worker.wake()

    def close(self) -> None:
        """Writes what is not written yet; gives up after CLOSE_TIMEOUT. The store can still be used."""
        self._worker.close(CLOSE_TIMEOUT)

    # in the worker's thread

    def _sync(self, is_last: bool) -> float | None:
        """Writes what this router learned, and reads the table, which lacks what a command has deleted."""
        with self._lock:
            unwritten = dict(self._unwritten)
        found: _Facts = {}

        def share(database: sqlite3.Connection) -> None:
            if unwritten:
                database.executemany(_LEARN, [(*key, at) for key, at in unwritten.items()])
                database.execute(_TRIM, (LIMIT,))
            found.clear()
            found.update(_read(database))

        is_there = bool(unwritten) or self._database.file.exists()  # reading makes no file
        if is_there and self._database.transact(share, wait=self._lock_timeout):
            with self._lock:
                for key, at in unwritten.items():
                    if self._unwritten.get(key) == at:
                        del self._unwritten[key]
                self._facts = found | self._unwritten
                _trim(self._facts)
        self._is_read.set()
        return self._poll


def facts(folder: Path, *, wait: float = LOCK_TIMEOUT) -> list[Fact]:
    """All facts in the file, for a command. Raises sqlite3.Error and OSError."""
    if not (folder / FILE).exists():
        return []
    with closing(connect(folder / FILE, wait)) as database:
        return _fresh(_read(database), time.time())


def forget(
    folder: Path, provider: str | None = None, field: str | None = None, *, wait: float = LOCK_TIMEOUT
) -> list[Fact]:
    """Deletes the facts of a provider, or of one of its fields, or all; returns the deleted ones.

    Raises sqlite3.Error and OSError; then nothing is deleted.
    """
    gone = [
        fact
        for fact in facts(folder, wait=wait)
        if provider in (None, fact.provider) and field in (None, fact.field)
    ]
    if gone:
        with closing(connect(folder / FILE, wait)) as database, database:
            database.executemany(_FORGET, [fact[:3] for fact in gone])
    return gone


def _read(database: sqlite3.Connection) -> _Facts:
    return {(provider, model, field): at for provider, model, field, at in database.execute(_ALL)}


def _trim(facts: _Facts) -> None:
    while len(facts) > LIMIT:
        del facts[next(iter(facts))]


def _fresh(facts: _Facts, now: float) -> list[Fact]:
    """The facts of the last week. One dated later than tomorrow came from a wrong clock, and is left out."""
    return [Fact(*key, at) for key, at in sorted(facts.items()) if now - WEEK < at < now + DAY]
