"""Connections to the database of the ledger, SQLite or PostgreSQL, as one thread uses them.

`ledger` in the rules names it: a file in the state folder, or a PostgreSQL that many routers share. It may be
unavailable at any time: locked, full, restarted, or behind a network that hangs. Every error is a
DatabaseError, and the next use connects again. A damaged SQLite file is renamed, and a new one is made.
"""

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import (
    URL,
    Column,
    Connection,
    Engine,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    create_engine,
    delete,
    event,
    insert,
    inspect,
    make_url,
    select,
)
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.exc import DataError, DBAPIError, SQLAlchemyError
from sqlalchemy.schema import CreateColumn, CreateIndex, CreateTable

from signalbox.config.rules import LedgerSettings
from signalbox.database_errors import DatabaseError, UnwritableError

FILE = "ledger.sqlite"
LOCK_TIMEOUT = 2.0
"""Seconds for which a write waits for another router."""
CONNECT_TIMEOUT = 5
"""Seconds for PostgreSQL to answer a new connection."""
STATEMENT_TIMEOUT = 20
"""Seconds after which PostgreSQL gives up a statement."""
SILENCE = 10
"""Seconds without an acknowledgement after which a connection to PostgreSQL counts as lost."""

ASIDE = 5
"""Damaged SQLite files that are kept."""

MIGRATING = 0x5167_6E61
"""Key of the advisory lock under which tables are made and changed."""

_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
ERRORS = (SQLAlchemyError, sqlite3.Error, OSError, ImportError)


class Schema(NamedTuple):
    tables: MetaData
    version: Table
    """Has one row with the number of the last migration; empty before there were any."""
    migrations: Mapping[int, tuple[Column[Any], ...]]
    """By number, from 1, the columns that it adds. Whole tables and indexes need none: those that are missing
    are made when a router connects."""


def keys_table(tables: MetaData) -> Table:
    """Keys of digests, which all routers with this database share; see `shared_key`."""
    return Table(
        "keys",
        tables,
        Column("name", String, primary_key=True),
        Column("key", LargeBinary, nullable=False),
    )


def shared_key(connection: Connection, keys: Table, name: str, own: bytes) -> bytes:
    """The key of that name; if there is none yet, it becomes `own`."""
    insert_into = sqlite_insert if connection.dialect.name == "sqlite" else postgresql_insert
    connection.execute(insert_into(keys).on_conflict_do_nothing(), [{"name": name, "key": own}])
    return bytes(connection.execute(select(keys.c.key).where(keys.c.name == name)).scalar_one())


def version_table(name: str, tables: MetaData) -> Table:
    return Table(name, tables, Column("number", Integer, nullable=False))


def ledger_url(folder: Path, ledger: LedgerSettings) -> URL:
    """The database that the rules name; `folder` is the state folder, in which the SQLite file is."""
    if ledger.shared_url is not None:
        return database_url(ledger.shared_url)
    if ledger.url == "sqlite":
        return URL.create("sqlite", database=str(folder / FILE))
    url = make_url(ledger.url)
    return url.set(database=str(folder / (url.database or FILE)))


def database_url(written: str) -> URL:
    """The URL of a PostgreSQL, with its driver."""
    return make_url(written).set(drivername="postgresql+psycopg")


def shown_url(url: URL) -> str:
    """For people: the file, or host and name of the database. No user, no password, no options."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    where = url.host or url.query.get("host") or "localhost"
    return f"PostgreSQL {url.database or ''} at {where}{f':{url.port}' if url.port else ''}"


class Database:
    """Connected to at first use; for one thread. All methods but `close` raise DatabaseError."""

    def __init__(self, url: URL, schema: Schema, *, lock_timeout: float = LOCK_TIMEOUT) -> None:
        """A SQLite file need not exist yet; it is made with mode 0600."""
        self.shown = shown_url(url)
        self._url = url
        self._schema = schema
        self._lock_timeout = lock_timeout
        self._engine: Engine | None = None
        self._connection: Connection | None = None
        self._inode = 0
        """Of the SQLite file that is connected to."""
        self._replaced = False

    @property
    def is_sqlite(self) -> bool:
        return self._url.get_backend_name() == "sqlite"

    @property
    def file(self) -> Path:
        """Of a SQLite database."""
        return Path(self._url.database or FILE)

    @contextmanager
    def begun(self) -> Iterator[Connection]:
        """A transaction."""
        try:
            if self._connection is not None and self.is_sqlite and self._inode != self._inode_of_file():
                self.close()  # deleted, or set aside by another router
            if self._connection is None:
                self._connection = self._connect()
            with self._connection.begin():
                yield self._connection
        except ERRORS as error:
            self.close()
            raise self._explained(error) from error

    def close(self) -> None:
        """Disconnect; the next use connects again."""
        if self._connection is not None:
            with suppress(*ERRORS):
                self._connection.close()
            self._connection = None
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    def _connect(self) -> Connection:
        if self.is_sqlite:
            self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # An existing file is opened by SQLite alone: any other open and close of it in this process drops
            # the locks of all its connections (https://sqlite.org/howtocorrupt.html, 2.2).
            with suppress(FileExistsError):
                os.close(os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            self._inode = self._inode_of_file()
        self._engine = engine(self._url, lock_timeout=self._lock_timeout)
        connection = self._engine.connect()
        try:
            bring_up_to_date(connection, self._schema)
        except BaseException:
            connection.close()  # another one is made at the next try
            raise
        return connection

    def _inode_of_file(self) -> int:
        with suppress(FileNotFoundError):
            return self.file.stat().st_ino
        return 0

    def _explained(self, error: BaseException) -> DatabaseError:
        text = reason(error)
        cause = error.orig if isinstance(error, DBAPIError) else error
        if isinstance(error, DataError):
            return UnwritableError(text)
        if (getattr(cause, "sqlite_errorcode", 0) & 0xFF) in _DAMAGED and not self._replaced:
            self._replaced = True
            text += self._set_aside()
        return DatabaseError(text)

    def _set_aside(self) -> str:
        """Rename the damaged file; only once, so that a disk that damages every file does not fill up."""
        aside = self._free_name()
        with suppress(FileNotFoundError):  # another router is doing the same
            if self._inode in (0, self._inode_of_file()):
                for suffix in ("-shm", "-wal"):
                    with suppress(FileNotFoundError):
                        self.file.with_name(self.file.name + suffix).replace(f"{aside}{suffix}")
                self.file.replace(aside)
                return f": set aside as {aside.name} and begun anew"
        return ""

    def _free_name(self) -> Path:
        """`ledger.sqlite.broken`, `.broken-2`, ...: what was set aside earlier may still be wanted. The last
        of ASIDE is used again."""
        names = [
            f"{self.file.name}.broken{f'-{number}' if number > 1 else ''}" for number in range(1, ASIDE + 1)
        ]
        paths = [self.file.with_name(name) for name in names]
        return next((path for path in paths if not path.exists()), paths[-1])


def reason(error: BaseException) -> str:
    """Why the database cannot be used, in one line: SQLAlchemy's own text has the rows in it."""
    if isinstance(error, ImportError):
        return f"{error}: the extra `postgres` installs what PostgreSQL needs"
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return " ".join(str(cause).split()) or type(cause).__name__


def engine(url: URL, *, lock_timeout: float = LOCK_TIMEOUT, **options: Any) -> Engine:
    """Makes connections that give up in time; `options` are those of `create_engine`.

    Raises ImportError where the driver is missing.
    """
    if url.get_backend_name() == "sqlite":
        made = create_engine(url, connect_args={"timeout": lock_timeout}, **options)

        @event.listens_for(made, "connect")
        def opened(connection: sqlite3.Connection, _: object) -> None:
            with suppress(sqlite3.OperationalError):  # locked: another router is about to do the same
                connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")

        return made
    patient = {
        "connect_timeout": str(CONNECT_TIMEOUT),
        "keepalives_idle": str(SILENCE),
        "keepalives_interval": "2",
        "keepalives_count": "3",
        "tcp_user_timeout": str(SILENCE * 1000),
        "application_name": "signalbox",
    }
    url = url.set(query={**patient, **url.query})
    # No prepared statements: they do not outlive a transaction in a pooler such as PgBouncer.
    made = create_engine(url, connect_args={"prepare_threshold": None}, **options)

    @event.listens_for(made, "connect")
    def connected(connection: Any, _: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                f"SET statement_timeout = '{STATEMENT_TIMEOUT}s';"
                f" SET lock_timeout = '{round(lock_timeout * 1000)}ms';"
                f" SET idle_in_transaction_session_timeout = '{STATEMENT_TIMEOUT}s'"
            )
        connection.commit()

    return made


def bring_up_to_date(connection: Connection, schema: Schema) -> None:
    """Make the tables that are missing, and run the migrations that the others have not seen.

    A table that is made anew has the newest columns: a migration adds what is not there yet. It is one
    transaction under a lock, so that of many routers that start at once the first does it. A database that is
    newer than this router is left as it is.
    """
    newest = max(schema.migrations)
    with connection.begin():
        if _is_current(connection, schema, newest):
            return
    with connection.begin():
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATING})")
        if _is_current(connection, schema, newest):
            return  # another router did it meanwhile, and its writes and our locks may not meet
        for table in schema.tables.sorted_tables:
            connection.execute(CreateTable(table, if_not_exists=True))
        before = connection.scalar(select(schema.version.c.number)) or 0
        for number in range(before + 1, newest + 1):
            for column in schema.migrations[number]:
                _add(connection, column)
        for table in schema.tables.sorted_tables:
            for index in sorted(table.indexes, key=lambda index: str(index.name)):
                connection.execute(CreateIndex(index, if_not_exists=True))
        if before < newest:
            connection.execute(delete(schema.version))
            connection.execute(insert(schema.version), [{"number": newest}])


def _is_current(connection: Connection, schema: Schema, newest: int) -> bool:
    if not set(schema.tables.tables) <= set(inspect(connection).get_table_names()):
        return False
    return (connection.scalar(select(schema.version.c.number)) or 0) >= newest


def _add(connection: Connection, column: Column[Any]) -> None:
    table = column.table
    present = {one["name"] for one in inspect(connection).get_columns(table.name)}
    if column.name not in present:
        described = CreateColumn(column).compile(dialect=connection.dialect)
        connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {described}")
