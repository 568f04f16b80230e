"""The database of the ledger, as one thread uses it."""

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import URL, Connection, create_engine, delete, event, func, insert, select
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from signalbox.anthropic.api import TOKEN_FIELDS
from signalbox.record.entry import RECORDED, AttemptRow, Entry
from signalbox.record.tables import ATTEMPTS, PREFIXES, REQUESTS, SPOOLED, bring_up_to_date

FILE = "ledger.sqlite"
LOCK_TIMEOUT = 2.0
"""Seconds for which a write waits for another router's."""
LONGEST = 500
"""Characters of a text that are written: callers name models."""
AT_ONCE = 5000
"""Requests that are deleted in one transaction, so that no other router waits long."""
PREFIXES_KEPT = 7 * 86400
"""Seconds for which the digests of a request's blocks are kept."""

_ONLY_HERE = (
    "tier", "agent", "request_class", "project", "account", "stream", "http_status", "error_type",
    "request_id", "list_cost", "cache_cause",
)  # fmt: skip


class DatabaseError(Exception):
    """The file cannot be read or written. The text gives the reason and holds no rows."""


_ERRORS = (SQLAlchemyError, sqlite3.Error, OSError)

_ALL_TOKENS = func.sum(sum((ATTEMPTS.c[name] for name in TOKEN_FIELDS[1:]), ATTEMPTS.c[TOKEN_FIELDS[0]]))


class Database:
    """The file, connected to at first use; for one thread. All methods but `close` raise DatabaseError."""

    def __init__(self, file: Path, *, lock_timeout: float = LOCK_TIMEOUT, at_once: int = AT_ONCE) -> None:
        """`file` need not exist yet; it is made with mode 0600. `at_once` requests are deleted in one
        transaction."""
        self.file = file
        self._at_once = at_once
        url = URL.create("sqlite", database=str(file))
        self._engine = create_engine(url, connect_args={"timeout": lock_timeout})
        self._connection: Connection | None = None

        @event.listens_for(self._engine, "connect")
        def connected(connection: sqlite3.Connection, _: object) -> None:
            with suppress(sqlite3.OperationalError):  # locked: another router is about to do the same
                connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")

    def write(self, entries: Sequence[Entry], spool: str = "", number: int = 0) -> None:
        """Write all or none, and with them the number of the last one in that spool."""
        with self._begun() as connection:
            self._insert(connection, entries)
            if spool:
                _note(connection, spool, number)

    def adopt(self, spool: str, entries: Sequence[tuple[int, Entry]]) -> list[Entry]:
        """Write the entries of a spool whose router is gone that are missing here; returns those."""
        with self._begun() as connection:
            written = connection.scalar(select(SPOOLED.c.number).where(SPOOLED.c.name == spool)) or 0
            missing = [entry for number, entry in entries if number > written]
            if missing:
                self._insert(connection, missing)
                _note(connection, spool, entries[-1][0])
        return missing

    def _insert(self, connection: Connection, entries: Sequence[Entry]) -> None:
        added = insert(REQUESTS).returning(REQUESTS.c.id, sort_by_parameter_order=True)
        if entries:
            ids = connection.execute(added, [_request(entry) for entry in entries]).scalars().all()
            attempts = [
                {"request": request, "number": number, **_attempt(attempt)}
                for request, entry in zip(ids, entries, strict=True)
                for number, attempt in enumerate(entry.attempt_rows, 1)
            ]
            if attempts:
                connection.execute(insert(ATTEMPTS), attempts)
            prefixes = [
                {"request": request, **_prefix(entry)}
                for request, entry in zip(ids, entries, strict=True)
                if entry.blocks
            ]
            if prefixes:
                connection.execute(insert(PREFIXES), prefixes)

    def used(self, since: Mapping[str, int]) -> dict[str, int]:
        """By provider, tokens of all four kinds, of the attempts that began at that moment or later."""
        with self._begun() as connection:
            return {
                provider: connection.scalar(
                    select(_ALL_TOKENS).where(ATTEMPTS.c.provider == provider, ATTEMPTS.c.started >= moment)
                )
                or 0
                for provider, moment in since.items()
            }

    def version(self) -> int:
        """A number that changes when another connection has written."""
        with self._begun() as connection:
            return int(connection.exec_driver_sql("PRAGMA data_version").scalar_one())

    def forget(self, before: int, prefixes_before: int) -> None:
        """Delete requests that came before that moment, with their attempts, and the digests of those that
        came before the other."""
        old = select(REQUESTS.c.id).where(REQUESTS.c.ts < before).order_by(REQUESTS.c.ts).limit(self._at_once)
        gone = self._at_once
        while gone == self._at_once:
            with self._begun() as connection:
                connection.execute(delete(ATTEMPTS).where(ATTEMPTS.c.request.in_(old)))
                connection.execute(delete(PREFIXES).where(PREFIXES.c.request.in_(old)))
                gone = connection.execute(delete(REQUESTS).where(REQUESTS.c.id.in_(old))).rowcount

        with self._begun() as connection:
            connection.execute(delete(SPOOLED).where(SPOOLED.c.ts < before))
            connection.execute(delete(PREFIXES).where(PREFIXES.c.ts < prefixes_before))

    def close(self) -> None:
        """Disconnect; the next use connects again."""
        if self._connection is not None:
            with suppress(*_ERRORS):
                self._connection.close()
            self._connection = None
        self._engine.dispose()

    @contextmanager
    def _begun(self) -> Iterator[Connection]:
        try:
            if self._connection is None:
                self._connection = self._connect()
            with self._connection.begin():
                yield self._connection
        except _ERRORS as error:
            # SQLAlchemy's own text has the rows in it.
            raise DatabaseError(str(error.orig if isinstance(error, DBAPIError) else error)) from error

    def _connect(self) -> Connection:
        self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(self.file, os.O_RDWR | os.O_CREAT, 0o600))
        connection = self._engine.connect()
        try:
            with connection.begin():
                bring_up_to_date(connection)
        except BaseException:
            connection.close()  # another one is made at the next try
            raise
        return connection


def _note(connection: Connection, spool: str, number: int) -> None:
    connection.execute(delete(SPOOLED).where(SPOOLED.c.name == spool))
    row = {"name": spool, "number": number, "ts": milliseconds(datetime.now(UTC))}
    connection.execute(insert(SPOOLED), [row])


def milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _request(entry: Entry) -> dict[str, Any]:
    row = {name: _writable(getattr(entry, name)) for name in (*RECORDED, *_ONLY_HERE)}
    return row | {"ts": milliseconds(entry.ts)}


def _attempt(attempt: AttemptRow) -> dict[str, Any]:
    row = {name: _writable(value) for name, value in msgspec.structs.asdict(attempt).items()}
    return row | {"started": milliseconds(attempt.started)}


def _prefix(entry: Entry) -> dict[str, Any]:
    row = {name: _writable(getattr(entry, name)) for name in ("session", "agent_id", "blocks")}
    return row | {"ts": milliseconds(entry.ts)}


def _writable(value: object) -> object:
    """The value; a text shortened and without lone surrogates, which come from bytes that are not UTF-8."""
    return value[:LONGEST].encode(errors="replace").decode() if isinstance(value, str) else value
