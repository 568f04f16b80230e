"""The ledger's tables, and what is done with them. Times in them are Unix milliseconds.

Several routers may share the file. Nothing of it is a prompt, a body or a credential.
"""

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import (
    URL,
    Boolean,
    Column,
    Connection,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    delete,
    event,
    func,
    insert,
    inspect,
    select,
)
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.schema import CreateIndex, CreateTable

from signalbox.record.entry import RECORDED, Attempt, Entry

FILE = "ledger.sqlite"
BUSY = 2.0
"""Seconds that a write waits for another router's."""
LONGEST = 500
"""Characters of a text that are kept: callers name models."""
AT_ONCE = 5000
"""Requests that are forgotten in one transaction, so that no other router waits long."""

TOKENS = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
_ONLY_HERE = ("tier", "agent", "stream", "http_status", "error_type", "request_id")

_TABLES = MetaData()

REQUESTS = Table(
    "requests",
    _TABLES,
    Column("id", Integer, primary_key=True),
    Column("ts", Integer, nullable=False),
    Column("model", String, nullable=False),
    Column("backend", String, nullable=False),
    *(Column(name, Integer, nullable=False) for name in TOKENS),
    Column("status", String, nullable=False),
    Column("upstream_model", String, nullable=False),
    Column("rule", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("attempts", String, nullable=False),
    Column("latency_ms", Integer, nullable=False),
    Column("first_byte_ms", Integer),
    Column("cost", Float),
    Column("session", String),
    Column("client", String),
    Column("tier", String),
    Column("agent", String),
    Column("stream", Boolean),
    Column("http_status", Integer),
    Column("error_type", String),
    Column("request_id", String),
    Index("requests_ts", "ts"),
    sqlite_autoincrement=True,
)
"""One row a request; what the columns mean stands in `Entry`."""

ATTEMPTS = Table(
    "attempts",
    _TABLES,
    Column("request", ForeignKey("requests.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("provider", String, nullable=False),
    Column("model", String, nullable=False),
    Column("key", Integer),
    Column("started", Integer, nullable=False),
    Column("latency_ms", Integer, nullable=False),
    Column("first_byte_ms", Integer),
    Column("outcome", String, nullable=False),
    Column("http_status", Integer),
    Column("kind", String, nullable=False),
    Column("detail", String, nullable=False),
    *(Column(name, Integer, nullable=False) for name in TOKENS),
    Index("attempts_used", "provider", "started", *TOKENS),
    sqlite_with_rowid=False,
)
"""One row an attempt, numbered from 1; what the columns mean stands in `Attempt`."""

SPOOLED = Table(
    "spooled",
    _TABLES,
    Column("name", String, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("ts", Integer, nullable=False),
)
"""Up to which number the entries of a router's spool are here, and when that was noted."""

type Fault = SQLAlchemyError | sqlite3.Error | OSError
"""Whatever a disk, or another program, does to the file."""
FAULTS = (SQLAlchemyError, sqlite3.Error, OSError)

_ALL_TOKENS = func.sum(sum((ATTEMPTS.c[name] for name in TOKENS[1:]), ATTEMPTS.c[TOKENS[0]]))


class Database:
    """The file, connected to at first use; for one thread. All but `close` raise a `Fault`."""

    def __init__(self, file: Path) -> None:
        """`file` need not exist yet; it will be its owner's alone."""
        self.file = file
        self._engine = create_engine(URL.create("sqlite", database=str(file)), connect_args={"timeout": BUSY})
        self._connection: Connection | None = None

        @event.listens_for(self._engine, "connect")
        def connected(connection: sqlite3.Connection, _: object) -> None:
            with suppress(sqlite3.OperationalError):  # locked: another router is about to do the same
                connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")

    def write(self, entries: Sequence[Entry], spool: str = "", number: int = 0) -> None:
        """All of them, or none; with them the number of the last one in that spool."""
        with self._begun() as connection:
            self._insert(connection, entries)
            if spool:
                _note(connection, spool, number)

    def adopt(self, spool: str, entries: Sequence[tuple[int, Entry]]) -> list[Entry]:
        """Write what is not here yet of a spool whose router is gone; gives that."""
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
            ids = connection.execute(added, [_request(entry) for entry in entries]).scalars()
            attempts = [
                {"request": request, "number": number, **_attempt(attempt)}
                for request, entry in zip(ids, entries, strict=True)
                for number, attempt in enumerate(entry.tried, 1)
            ]
            if attempts:
                connection.execute(insert(ATTEMPTS), attempts)

    def used(self, since: Mapping[str, int]) -> dict[str, int]:
        """By provider, the tokens of all four kinds of the attempts that began at its moment or later."""
        with self._begun() as connection:
            return {
                provider: connection.scalar(
                    select(_ALL_TOKENS).where(ATTEMPTS.c.provider == provider, ATTEMPTS.c.started >= moment)
                )
                or 0
                for provider, moment in since.items()
            }

    def version(self) -> int:
        """A number that is another one after somebody else has written."""
        with self._begun() as connection:
            return int(connection.exec_driver_sql("PRAGMA data_version").scalar_one())

    def forget(self, before: int) -> None:
        """Requests that came before that moment, and their attempts."""
        old = select(REQUESTS.c.id).where(REQUESTS.c.ts < before).order_by(REQUESTS.c.ts).limit(AT_ONCE)
        gone = AT_ONCE
        while gone == AT_ONCE:
            with self._begun() as connection:
                connection.execute(delete(ATTEMPTS).where(ATTEMPTS.c.request.in_(old)))
                gone = connection.execute(delete(REQUESTS).where(REQUESTS.c.id.in_(old))).rowcount

        with self._begun() as connection:
            connection.execute(delete(SPOOLED).where(SPOOLED.c.ts < before))

    def close(self) -> None:
        """It is connected to anew at its next use."""
        if self._connection is not None:
            with suppress(*FAULTS):
                self._connection.close()
            self._connection = None
        self._engine.dispose()

    @contextmanager
    def _begun(self) -> Iterator[Connection]:
        if self._connection is None:
            self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self.file, os.O_RDWR | os.O_CREAT, 0o600))
            self._connection = self._engine.connect()
            with self._connection.begin():
                _create(self._connection)
        with self._connection.begin():
            yield self._connection


def _note(connection: Connection, spool: str, number: int) -> None:
    connection.execute(delete(SPOOLED).where(SPOOLED.c.name == spool))
    row = {"name": spool, "number": number, "ts": milliseconds(datetime.now(UTC))}
    connection.execute(insert(SPOOLED), [row])


def reason(fault: Fault) -> str:
    """For people; SQLAlchemy's own text has the rows in it."""
    return str(fault.orig if isinstance(fault, DBAPIError) else fault)


def _create(connection: Connection) -> None:
    for table in _TABLES.sorted_tables:
        connection.execute(CreateTable(table, if_not_exists=True))
        for index in table.indexes:
            connection.execute(CreateIndex(index, if_not_exists=True))
    if all(column["name"] != "request_id" for column in inspect(connection).get_columns("requests")):
        # The file is older than that column, and budgets hang on its being written.
        connection.exec_driver_sql("ALTER TABLE requests ADD COLUMN request_id VARCHAR")


def milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _request(entry: Entry) -> dict[str, Any]:
    row = {name: _kept(getattr(entry, name)) for name in (*RECORDED, *_ONLY_HERE)}
    return row | {"ts": milliseconds(entry.ts)}


def _attempt(attempt: Attempt) -> dict[str, Any]:
    row = {name: _kept(value) for name, value in msgspec.structs.asdict(attempt).items()}
    return row | {"started": milliseconds(attempt.started)}


def _kept(value: object) -> object:
    """A text as it can be written: a header with bytes that are no UTF-8 gives lone surrogates."""
    return value[:LONGEST].encode(errors="replace").decode() if isinstance(value, str) else value
