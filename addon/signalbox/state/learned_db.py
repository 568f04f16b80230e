"""`learned.sqlite` in the state folder: facts that routers have learned and share.

Requests do not depend on the file. A router that cannot use it goes on with its memory and tries again. A
damaged file is renamed to `learned.sqlite.broken`, and a new one is made.
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
    """Opens the file, or makes it with mode 0600. Raises sqlite3.Error and OSError.

    `wait`: seconds to wait for the lock of another process. Only SQLite opens an existing file: if this
    process opened and closed it in any other way, the locks of all its connections would be dropped
    (https://sqlite.org/howtocorrupt.html, 2.2).
    """
    with suppress(FileExistsError):
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    connection = sqlite3.connect(file, timeout=wait)
    try:
        with suppress(sqlite3.OperationalError):  # locked by a process that is about to do the same
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.executescript(_SCHEMA)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


class LearnedDatabase:
    """The file as one thread uses it."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / FILE
        self._inode = 0
        """Inode of the file that was opened last."""
        self._failing = False
        self._replaced = False

    def transact(self, do: Callable[[sqlite3.Connection], object], *, wait: float) -> bool:
        """Runs `do` in a transaction; returns whether that succeeded. Only the first of consecutive failures
        is logged. If the file is damaged, `do` is called again with a new file."""
        try:
            self._transact(do, wait)
        except (sqlite3.Error, OSError) as error:
            if not self._failing:
                log.warning("%s: %s: what is learned is kept in memory until that is over", self.file, error)
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
        except sqlite3.DatabaseError as error:
            if self._replaced or (getattr(error, "sqlite_errorcode", 0) & 0xFF) not in _DAMAGED:
                raise
            self._set_aside(error)
            self._transact(do, wait)

    def _set_aside(self, error: sqlite3.DatabaseError) -> None:
        """Renames the damaged file, but only once, so that a disk that damages every file does not fill
        up."""
        self._replaced = True
        with suppress(FileNotFoundError):  # another router is doing the same
            if self.file.stat().st_ino == self._inode:
                for suffix in ("-shm", "-wal"):
                    self.file.with_name(FILE + suffix).unlink(missing_ok=True)
                self.file.replace(self.file.with_name(BROKEN))
                log.warning("%s: %s: set aside as %s and begun anew", self.file, error, BROKEN)
