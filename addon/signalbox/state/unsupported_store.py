"""What providers were seen to reject, remembered for a week and shared by routers with one state folder.

There are few such facts, so the whole table is read again every few seconds.
"""

import sqlite3
import time
from collections.abc import Callable, Collection
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

from signalbox.config import files
from signalbox.state.learned_db import FILE, LearnedDatabase, connect

WEEK = 7 * 86400.0
"""Seconds after which a provider is given another try."""
DAY = 86400.0
MOST = 1000
"""Facts kept: models are named by whoever asks."""
EVERY = 3.0
"""Seconds between two looks at what other routers learned."""
BUSY = 0.05
"""Seconds that a write waits for another router's, and with it the requests; then it is tried again with the
next look."""
LAST = 1.0
"""Seconds that the last write waits, and a command."""

_ALL = "SELECT provider, model, field, at FROM rejected"
_LEARN = "INSERT OR REPLACE INTO rejected (provider, model, field, at) VALUES (?, ?, ?, ?)"
_TIDY = (
    "DELETE FROM rejected"
    " WHERE rowid NOT IN (SELECT rowid FROM rejected ORDER BY at DESC, rowid DESC LIMIT ?)"
)
"""By their number alone: a clock that is wrong for a moment deletes nothing."""
_FORGET = "DELETE FROM rejected WHERE provider = ? AND model = ? AND field = ?"


class Fact(NamedTuple):
    """A field, or a value of `anthropic-beta`, that this provider's model rejected at that time (Unix, s)."""

    provider: str
    model: str
    field: str
    at: float


type _Facts = dict[tuple[str, str, str], float]


class UnsupportedStore:
    """The memory of one router, for its event loop. `clock` gives Unix seconds."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._shared = LearnedDatabase(folder)
        self._clock = clock
        self._facts: _Facts = {}
        self._unwritten: _Facts = {}
        self._looked = float("-inf")

    def rejected(self, provider: str, model: str) -> frozenset[str]:
        """Fields and values, as `messages.field_paths` and `messages.betas` name them."""
        return frozenset(
            fact.field for fact in self.all() if (fact.provider, fact.model) == (provider, model)
        )

    def all(self) -> list[Fact]:
        """By provider, model and field, less those that are a week old."""
        if abs(self._clock() - self._looked) >= EVERY:  # the clock may be set back
            self._share(BUSY)
        return _fresh(self._facts, self._clock())

    def learn(self, provider: str, model: str, fields: Collection[str]) -> None:
        new = {(provider, model, field): self._clock() for field in sorted(fields)}
        for facts in (self._facts, self._unwritten):
            facts.update(new)
            while len(facts) > MOST:
                del facts[next(iter(facts))]
        if new:
            self._share(BUSY)

    def close(self) -> None:
        """Write what is still to be written."""
        if self._unwritten:
            self._share(LAST)

    def _share(self, wait: float) -> None:
        """Write what this router learned, and read what all did, less what was forgotten."""
        self._looked = self._clock()
        unwritten = [(*key, at) for key, at in self._unwritten.items()]
        found: _Facts = {}

        def share(database: sqlite3.Connection) -> None:
            if unwritten:
                database.executemany(_LEARN, unwritten)
                database.execute(_TIDY, (MOST,))
            found.update(_read(database))

        def transact() -> bool:
            is_there = bool(unwritten) or self._shared.file.exists()
            return is_there and self._shared.transact(share, wait=wait)

        with suppress(TimeoutError):  # a disk that hangs: it is tried again with the next look
            if files.within(self._shared.file, transact, wait + files.SOON):
                self._facts = found
                self._unwritten.clear()


def facts(folder: Path) -> list[Fact]:
    """What is known, for a command. Raises sqlite3.Error and OSError."""
    if not (folder / FILE).exists():
        return []
    with closing(connect(folder / FILE, LAST)) as database:
        return _fresh(_read(database), time.time())


def forget(folder: Path, provider: str | None = None, field: str | None = None) -> list[Fact]:
    """Forget what is known of a provider, or this one field of it, or everything; gives what is gone.

    Raises sqlite3.Error and OSError: then all is still there.
    """
    gone = [
        fact for fact in facts(folder) if provider in (None, fact.provider) and field in (None, fact.field)
    ]
    if gone:
        with closing(connect(folder / FILE, LAST)) as database, database:
            database.executemany(_FORGET, [fact[:3] for fact in gone])
    return gone


def _read(database: sqlite3.Connection) -> _Facts:
    return {(provider, model, field): at for provider, model, field, at in database.execute(_ALL)}


def _fresh(facts: _Facts, now: float) -> list[Fact]:
    """Those of the last week; what is said to be of tomorrow was learned while the clock was wrong."""
    return [Fact(*key, at) for key, at in sorted(facts.items()) if now - WEEK < at < now + DAY]
