"""`learned.sqlite` in the state folder: what the routers with this folder learned, and share.

The file is a help only. A router that cannot use it goes on with what it learned itself, and tries again;
a damaged file is set aside and begun anew.
"""

import logging
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

log = logging.getLogger("signalbox")

FILE = "learned.sqlite"
BROKEN = FILE + ".broken"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS issued (number INTEGER PRIMARY KEY, digest BLOB UNIQUE, provider TEXT);
CREATE TABLE IF NOT EXISTS issued_key (one INTEGER PRIMARY KEY CHECK (one = 1), key BLOB);
CREATE TABLE IF NOT EXISTS rejected
    (provider TEXT, model TEXT, field TEXT, at REAL, PRIMARY KEY (provider, model, field));
"""
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def connect(file: Path, wait: float) -> sqlite3.Connection:
    """Opens the file, which is made where there is none, for its user alone. `wait`: seconds to wait for
    what others are writing. Raises sqlite3.Error and OSError.

    A file that is there is opened by SQLite alone: whoever else in the process opens and closes it takes the
    locks of all its connections away (https://sqlite.org/howtocorrupt.html, 2.2).
    """
    with suppress(FileExistsError):
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    connection = sqlite3.connect(file, timeout=wait)
    try:
        with suppress(sqlite3.OperationalError):  # locked: who has the lock is about to do the same
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.executescript(_SCHEMA)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


class LearnedDatabase:
    """The file as one thread writes it."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / FILE
        self._inode = 0
        """Of the file that was opened last."""
        self._failing = False
        self._replaced = False

    def transact(self, do: Callable[[sqlite3.Connection], object], *, wait: float) -> bool:
        """Whether it was done; of failures in a row the first one is told. `do` may be called twice."""
        try:
            self._transact(do, wait)
        except (sqlite3.Error, OSError) as fault:
            if not self._failing:
                log.warning("%s: %s: what is learned is kept in memory until that is over", self.file, fault)
            self._failing = True
            return False
        self._failing = False
        return True

    def _transact(self, do: Callable[[sqlite3.Connection], object], wait: float) -> None:
        with suppress(FileNotFoundError):
            self._inode = self.file.stat().st_ino
        try:
            with closing(connect(self.file, wait)) as database, database:
                do(database)
        except sqlite3.DatabaseError as fault:
            if self._replaced or (getattr(fault, "sqlite_errorcode", 0) & 0xFF) not in _DAMAGED:
                raise
            self._set_aside(fault)
            self._transact(do, wait)

    def _set_aside(self, fault: sqlite3.DatabaseError) -> None:
        """Once only: a disk that damages every file is not to be filled with them."""
        self._replaced = True
        with suppress(FileNotFoundError):  # another router is doing the same
            if self.file.stat().st_ino == self._inode:
                for suffix in ("-shm", "-wal"):
                    self.file.with_name(FILE + suffix).unlink(missing_ok=True)
                self.file.replace(self.file.with_name(BROKEN))
                log.warning("%s: %s: set aside as %s and begun anew", self.file, fault, BROKEN)
