"""What providers were seen to reject, remembered for a week and shared by routers with one state folder.

There are few such facts, so the whole table is read again every few seconds. The file is a help only:
where it cannot be read or written, a router knows what it learned itself.
"""

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Collection
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

log = logging.getLogger("signalbox")

FILE = "learned.sqlite"
WEEK = 7 * 86400.0
"""Seconds after which a provider is given another try."""
MOST = 1000
"""Facts kept: models are named by whoever asks."""
EVERY = 3.0
"""Seconds between two looks at what other routers learned."""
BUSY = 0.5
"""Seconds that a write waits for another router's, and with it the requests."""

_TABLE = (
    "CREATE TABLE IF NOT EXISTS rejected"
    " (provider TEXT, model TEXT, field TEXT, at REAL, PRIMARY KEY (provider, model, field))"
)
_ALL = "SELECT provider, model, field, at FROM rejected"
_TIDY = (
    "DELETE FROM rejected WHERE at <= ?"
    " OR rowid NOT IN (SELECT rowid FROM rejected ORDER BY at DESC, rowid DESC LIMIT ?)"
)
_FORGET = "DELETE FROM rejected WHERE provider = ? AND model = ? AND field = ?"


class Fact(NamedTuple):
    """A field, or a value of `anthropic-beta`, that this provider's model rejected at that time (Unix, s)."""

    provider: str
    model: str
    field: str
    at: float


class Learned:
    """The memory of one router, for its event loop. `clock` gives Unix seconds."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._file = folder / FILE
        self._clock = clock
        self._facts: dict[tuple[str, str, str], float] = {}
        self._looked = float("-inf")
        self._alone = False
        """Whether the file failed: then there is none any more."""

    def rejected(self, provider: str, model: str) -> frozenset[str]:
        """Fields and values, as `messages.fields` and `messages.betas` name them."""
        return frozenset(
            fact.field for fact in self.all() if (fact.provider, fact.model) == (provider, model)
        )

    def all(self) -> list[Fact]:
        """By provider, model and field, less those that are a week old."""
        if abs(self._clock() - self._looked) >= EVERY:  # the clock may be set back
            self._looked = self._clock()
            self._transact(self._read)
        oldest = self._clock() - WEEK
        return [Fact(*key, at) for key, at in sorted(self._facts.items()) if at > oldest]

    def learn(self, provider: str, model: str, fields: Collection[str]) -> None:
        now = self._clock()
        new = [Fact(provider, model, field, now) for field in sorted(fields)]
        self._facts.update({(provider, model, fact.field): now for fact in new})

        def write(database: sqlite3.Connection) -> None:
            database.executemany("INSERT OR REPLACE INTO rejected VALUES (?, ?, ?, ?)", new)
            database.execute(_TIDY, (now - WEEK, MOST))

        if new:
            self._transact(write, create=True)

    def forget(self, provider: str | None = None, field: str | None = None) -> list[Fact]:
        """Forget what is known of a provider, or this one field of it, or everything; gives what is gone."""
        gone = [
            fact for fact in self.all() if provider in (None, fact.provider) and field in (None, fact.field)
        ]
        keys = [(fact.provider, fact.model, fact.field) for fact in gone]
        for key in keys:
            del self._facts[key]
        self._transact(lambda database: database.executemany(_FORGET, keys))
        return gone

    def _read(self, database: sqlite3.Connection) -> None:
        """What all routers learned, less what was forgotten on the command line."""
        self._facts = {(provider, model, field): at for provider, model, field, at in database.execute(_ALL)}

    def _transact(self, do: Callable[[sqlite3.Connection], object], *, create: bool = False) -> None:
        if self._alone or not (create or self._file.exists()):
            return
        try:
            os.close(os.open(self._file, os.O_RDWR | os.O_CREAT, 0o600))
            with closing(sqlite3.connect(self._file, timeout=BUSY)) as database, database:
                database.execute(_TABLE)
                do(database)
        except (sqlite3.Error, OSError) as fault:
            self._alone = True
            log.warning("%s: %s: what providers reject is remembered until the end only", self._file, fault)
