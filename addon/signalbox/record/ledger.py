"""The ledger: a row for each request and each attempt, in `ledger.sqlite`.

A thread of its own writes, several requests at once. Requests never wait for it, and whatever the disk
does harms none of them. It also reads back what providers have used, of which budgets are made.
"""

import logging
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, NamedTuple

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
from sqlalchemy.schema import CreateColumn, CreateIndex, CreateTable

from signalbox.config import rules
from signalbox.record.entry import RECORDED, AttemptRow, Entry
from signalbox.record.spool import orphans

log = logging.getLogger("signalbox")

FILE = "ledger.sqlite"
BUSY = 2.0
"""Seconds that a write waits for another router's."""
LONGEST = 500
"""Characters of a text that are kept: callers name models."""
AT_ONCE = 5000
"""Requests that are forgotten in one transaction, so that no other router waits long."""

MOST = 10_000
"""Requests that may wait to be written; what comes on top is lost."""
BATCH = 500
"""Requests in one transaction."""
LINGER = 0.25
"""Seconds for which more are waited for, so that they share a transaction."""
EVERY = 3.0
"""Seconds between two looks at what other routers wrote, where there are budgets."""
HOUR = 3600.0
DAY = 24 * HOUR
"""Seconds between two times of forgetting what is too old."""
RETRY = 1.0
"""Seconds until what failed is tried again."""
QUIET = 60.0
"""Seconds between two lines about that."""
LAST = 3.0
"""Seconds for which it is tried at the end."""


PATIENCE = 1.0
"""Seconds for which an entry waits for the spool: what is in the ledger alone is missing in the request log
after a SIGKILL."""

TOKENS = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
_ONLY_HERE = ("tier", "agent", "stream", "http_status", "error_type", "request_id", "list_cost")

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
    Column("list_cost", Float),
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
    Column("cost", Float),
    Index("attempts_used", "provider", "started", *TOKENS),
    sqlite_with_rowid=False,
)
"""One row an attempt, numbered from 1; what the columns mean stands in `AttemptRow`."""

SPOOLED = Table(
    "spooled",
    _TABLES,
    Column("name", String, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("ts", Integer, nullable=False),
)
"""Up to which number the entries of a router's spool are here, and when that was noted."""


class DatabaseError(Exception):
    """The file cannot be read or written. The text gives the reason and holds no rows."""


_FAULTS = (SQLAlchemyError, sqlite3.Error, OSError)

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
                for number, attempt in enumerate(entry.attempt_rows, 1)
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
            with suppress(*_FAULTS):
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
        except _FAULTS as fault:
            # SQLAlchemy's own text has the rows in it.
            raise DatabaseError(str(fault.orig if isinstance(fault, DBAPIError) else fault)) from fault

    def _connect(self) -> Connection:
        self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(self.file, os.O_RDWR | os.O_CREAT, 0o600))
        connection = self._engine.connect()
        with connection.begin():
            _create(connection)
        return connection


def _note(connection: Connection, spool: str, number: int) -> None:
    connection.execute(delete(SPOOLED).where(SPOOLED.c.name == spool))
    row = {"name": spool, "number": number, "ts": milliseconds(datetime.now(UTC))}
    connection.execute(insert(SPOOLED), [row])


def _create(connection: Connection) -> None:
    for table in _TABLES.sorted_tables:
        connection.execute(CreateTable(table, if_not_exists=True))
        for index in table.indexes:
            connection.execute(CreateIndex(index, if_not_exists=True))
        present = {column["name"] for column in inspect(connection).get_columns(table.name)}
        for column in table.columns:
            if column.name not in present:  # the file is older than that column, and budgets need it written
                described = CreateColumn(column).compile(dialect=connection.dialect)
                connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {described}")


def milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _request(entry: Entry) -> dict[str, Any]:
    row = {name: _kept(getattr(entry, name)) for name in (*RECORDED, *_ONLY_HERE)}
    return row | {"ts": milliseconds(entry.ts)}


def _attempt(attempt: AttemptRow) -> dict[str, Any]:
    row = {name: _kept(value) for name, value in msgspec.structs.asdict(attempt).items()}
    return row | {"started": milliseconds(attempt.started)}


def _kept(value: object) -> object:
    """A text as it can be written: a header with bytes that are no UTF-8 gives lone surrogates."""
    return value[:LONGEST].encode(errors="replace").decode() if isinstance(value, str) else value


class UsageCounter:
    """Of those providers only that are asked for. Moments are Unix milliseconds."""

    def __init__(self) -> None:
        self.since: dict[str, int] = {}
        """By provider, the moment from which on it is added up."""
        self._read: dict[str, int] = {}
        self._own: dict[str, int] = {}

    def ask(self, provider: str, moment: int, unwritten: Iterable[Entry]) -> None:
        """From now on the tokens of this provider since that moment."""
        self.since[provider] = moment
        self._read[provider] = 0
        self._own[provider] = sum(self._used(entry, provider) for entry in unwritten)

    def used(self, provider: str) -> int:
        return self._read.get(provider, 0) + self._own.get(provider, 0)

    def add(self, entry: Entry) -> None:
        """What is entered counts at once."""
        for provider in {attempt.provider for attempt in entry.attempt_rows} & self.since.keys():
            self._own[provider] += self._used(entry, provider)

    def refresh(self, read: Mapping[str, int], unwritten: Iterable[Entry]) -> None:
        """`read` is what the file says; only `unwritten` is not in it."""
        self._read = dict(read)
        self._own = dict.fromkeys(self.since, 0)
        for entry in unwritten:
            self.add(entry)

    def _used(self, entry: Entry, provider: str) -> int:
        since = self.since[provider]
        return sum(
            attempt.tokens
            for attempt in entry.attempt_rows
            if attempt.provider == provider and milliseconds(attempt.started) >= since
        )


class _Waiting(NamedTuple):
    number: int
    since: float
    """On the monotonic clock."""
    entry: Entry


class Ledger:
    """The ledger of one router. `follow` starts it.

    What is entered after `close` is written too, before the process ends.
    """

    def __init__(
        self,
        folder: Path,
        *,
        clock: Callable[[], float] = time.time,
        spool: str = "",
        restored: Callable[[list[Entry]], None] = lambda _: None,
    ) -> None:
        """`clock` gives Unix seconds, `spool` is the name of this router's, if it has one; `restored` is told
        of entries that were found in the spool of another whose router is gone."""
        self._folder = folder
        self._file = folder / FILE
        self._spool = spool
        self._restored = restored
        self._adopted = False
        self._clock = clock
        self._keep = rules.Ledger().keep
        self._wanted = threading.Event()
        self._closing = threading.Event()
        self._known = threading.Event()
        """Whether all that `used` was asked for has been read."""
        self._known.set()
        self._lock = threading.Lock()
        """Of what follows, which the thread shares with the event loop."""
        self._thread: threading.Thread | None = None
        self._waiting: deque[_Waiting] = deque()
        self._number = 0
        """Of the entry that came last."""
        self.written = 0
        """Up to which number all are on file, or lost."""
        self.spooled = 0
        """Up to which number all are in the spool; set by who writes that."""
        self._lost = 0
        self._tally = UsageCounter()
        self._give_up = 0.0
        """When, on the monotonic clock, the end has been waited for long enough."""
        # For the thread alone:
        self._forgot: tuple[float, float] | None = None
        """When, and beyond which age, rows were last forgotten."""
        self._version = -1
        self._told: float | None = None
        """When a fault was last told, on the monotonic clock; None where all is well."""

    def follow(self, keep: float) -> None:
        """Rows older than `keep` seconds are forgotten from now on."""
        self._keep = keep
        self._closing.clear()
        with self._lock:
            self._start()
        self._wanted.set()

    def enter(self, entry: Entry) -> int:
        """Gives its number, from 1."""
        with self._lock:
            self._number += 1
            if len(self._waiting) < MOST:
                self._waiting.append(_Waiting(self._number, time.monotonic(), entry))
            else:
                self._lost += 1
            self._tally.add(entry)
            self._start()
            number = self._number
        self._wanted.set()
        return number

    def has_spooled(self, number: int) -> None:
        """All up to this number are in the spool, or will never be."""
        self.spooled = number
        self._wanted.set()

    def used(self, provider: str, since: datetime) -> int:
        """Tokens of all four kinds of the attempts that began then or later, in all routers with this file.

        Never waits: where it is asked for the first time, what is on file is known a moment later only.
        """
        moment = milliseconds(since)
        with self._lock:
            if self._tally.since.get(provider) != moment:
                self._tally.ask(provider, moment, self._unwritten())
                self._known.clear()
                self._start()
                self._wanted.set()
            return self._tally.used(provider)

    def ready(self, timeout: float = 2.0) -> None:
        """Wait until all that `used` was asked for has been read."""
        self._known.wait(timeout)

    def close(self, timeout: float = LAST + 2 * BUSY) -> None:
        """Returns when all is written, or cannot be."""
        self._give_up = time.monotonic() + LAST
        self._closing.set()
        self._wanted.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join(timeout)

    def _start(self) -> None:
        if self._thread is None:
            # What is entered after the end holds the process up until it is written.
            is_late = self._closing.is_set()
            self._thread = threading.Thread(target=self._run, name="signalbox-ledger", daemon=not is_late)
            self._thread.start()

    # in the thread

    def _run(self) -> None:
        with closing(Database(self._file)) as database:
            while True:
                self._wanted.wait(PATIENCE if self._waiting else EVERY if self._tally.since else HOUR)
                if self._known.is_set():
                    self._closing.wait(LINGER)
                self._wanted.clear()
                succeeded = self._settle(database)
                if self._is_over(succeeded):
                    break
                if not succeeded:
                    time.sleep(RETRY)
                    self._wanted.set()

    def _settle(self, database: Database) -> bool:
        """Whether all is done that there is to do."""
        try:
            self._adopt(database)
            self._write(database)
            self._forget(database)
            self._look(database)
        except DatabaseError as fault:
            database.close()
            self._version = -1
            self._tell(fault)
            return False
        if self._told is not None:
            self._told = None
            with self._lock:
                lost, self._lost = self._lost, 0
            log.info("%s: requests are recorded again, %d were lost", self._file, lost)
        return True

    def _adopt(self, database: Database) -> None:
        """Write what other routers, which were killed, had no time to write; once."""
        if self._adopted:
            return
        for orphan in orphans(self._folder):
            remove = False
            try:
                missing = database.adopt(orphan.name, orphan.entries)
                remove = True
                if missing:
                    log.info(
                        "%s: %d requests of a router that was killed are recorded", self._file, len(missing)
                    )
                    self._restored(missing)
            except DatabaseError:
                raise
            except Exception as fault:  # whatever it is, the others must still be recorded
                log.error("%s cannot be recorded: %s", orphan.path, type(fault).__name__)
            finally:
                orphan.release(remove=remove)
        self._adopted = True

    def _may_be_written(self, one: "_Waiting") -> bool:
        is_spooled = not self._spool or one.number <= self.spooled or self._closing.is_set()
        return is_spooled or time.monotonic() - one.since > PATIENCE

    def _unwritten(self) -> list[Entry]:
        return [one.entry for one in self._waiting]

    def _write(self, database: Database) -> None:
        while True:
            with self._lock:
                batch = list(takewhile(self._may_be_written, islice(self._waiting, BATCH)))
            if not batch:
                return
            try:
                database.write([one.entry for one in batch], self._spool, batch[-1].number)
            except DatabaseError:
                raise
            except Exception as fault:  # whatever it is, what comes after them must still be written
                log.error(
                    "%s: %d requests are not recorded: %s", self._file, len(batch), type(fault).__name__
                )
            with self._lock:
                for _ in batch:
                    self._waiting.popleft()
                self.written = batch[-1].number

    def _forget(self, database: Database) -> None:
        """What a running budget still counts stays in any case."""
        now, keep = self._clock(), self._keep
        if self._forgot is not None and self._forgot[1] == keep and now - self._forgot[0] < DAY:
            return
        with self._lock:
            counted = min(self._tally.since.values(), default=int(now * 1000))
        database.forget(min(int((now - keep) * 1000), counted))
        self._forgot = (now, keep)

    def _look(self, database: Database) -> None:
        """Read what has been used, where that is not known yet or another router has written."""
        with self._lock:
            since = dict(self._tally.since)
        if not since:
            return
        version = database.version()
        if self._known.is_set() and version == self._version:
            return
        read = database.used(since)
        self._version = version
        with self._lock:
            self._tally.refresh(read, self._unwritten())
            if since == self._tally.since:
                self._known.set()

    def _tell(self, fault: DatabaseError) -> None:
        now = time.monotonic()
        if self._told is None or now - self._told >= QUIET:
            self._told = now
            waiting = f"{len(self._waiting)} requests wait to be recorded, {self._lost} are lost"
            log.warning("%s: %s: %s", self._file, fault, waiting)

    def _is_over(self, succeeded: bool) -> bool:
        """Whether the router ends and nothing more is, or can be, written."""
        with self._lock:
            if not self._closing.is_set() or (
                self._waiting if succeeded else time.monotonic() < self._give_up
            ):
                return False
            unwritten = len(self._waiting)
            self._waiting.clear()
            self._thread = None
        if unwritten:
            log.error("%s: %d requests are not recorded", self._file, unwritten)
        return True
