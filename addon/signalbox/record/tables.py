"""The tables of the ledger, and the numbered migrations that bring those of an older one up to date.

The same tables in SQLite and PostgreSQL. Moments are Unix milliseconds.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    delete,
    insert,
    inspect,
    select,
)
from sqlalchemy.schema import CreateColumn, CreateIndex, CreateTable

from signalbox.anthropic.api import TOKEN_FIELDS

_TABLES = MetaData()

REQUESTS = Table(
    "requests",
    _TABLES,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("ts", BigInteger, nullable=False),
    Column("model", String, nullable=False),
    Column("backend", String, nullable=False),
    *(Column(name, BigInteger, nullable=False) for name in TOKEN_FIELDS),
    Column("status", String, nullable=False),
    Column("upstream_model", String, nullable=False),
    Column("rule", String, nullable=False),
    Column("reason", String, nullable=False),
    Column("attempts", String, nullable=False),
    Column("latency_ms", BigInteger, nullable=False),
    Column("first_byte_ms", BigInteger),
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
    Column("class", String, key="request_class"),
    Column("project", String),
    Column("account", String),
    Column("cache_cause", String),
    Index("requests_ts", "ts"),
    Index("requests_session", "session", "ts"),
    sqlite_autoincrement=True,
)
"""One row a request; `Entry` describes the columns."""

ATTEMPTS = Table(
    "attempts",
    _TABLES,
    Column("request", ForeignKey("requests.id"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("provider", String, nullable=False),
    Column("model", String, nullable=False),
    Column("key", Integer),
    Column("started", BigInteger, nullable=False),
    Column("latency_ms", BigInteger, nullable=False),
    Column("first_byte_ms", BigInteger),
    Column("outcome", String, nullable=False),
    Column("http_status", Integer),
    Column("kind", String, nullable=False),
    Column("detail", String, nullable=False),
    *(Column(name, BigInteger, nullable=False) for name in TOKEN_FIELDS),
    Column("cost", Float),
    Index("attempts_used", "provider", "started", *TOKEN_FIELDS),
    sqlite_with_rowid=False,
)
"""One row an attempt, numbered from 1; `AttemptRow` describes the columns."""

PREFIXES = Table(
    "prefixes",
    _TABLES,
    Column("request", ForeignKey("requests.id"), primary_key=True),
    Column("ts", BigInteger, nullable=False),
    Column("session", String),
    Column("agent_id", String),
    Column("blocks", LargeBinary, nullable=False),
    Index("prefixes_ts", "ts"),
)
"""One row a request: digest and length of each of its cacheable blocks, in order. No text."""

KEYS = Table(
    "keys",
    _TABLES,
    Column("name", String, primary_key=True),
    Column("key", LargeBinary, nullable=False),
)
"""Keys of digests, which all routers with this ledger share."""

SPOOLED = Table(
    "spooled",
    _TABLES,
    Column("name", String, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("ts", BigInteger, nullable=False),
)
"""The number up to which a router's spool is in this ledger, and when that was written."""

SCHEMA_VERSION = Table("schema_version", _TABLES, Column("number", Integer, nullable=False))
"""One row: the number of the last migration. A ledger of before there were any lacks it."""

_ADDED = {
    1: (REQUESTS.c.tier, REQUESTS.c.agent, REQUESTS.c.stream, REQUESTS.c.http_status, REQUESTS.c.error_type,
        REQUESTS.c.request_id, REQUESTS.c.list_cost, ATTEMPTS.c.cost),
    2: (REQUESTS.c.request_class, REQUESTS.c.project, REQUESTS.c.account, REQUESTS.c.cache_cause),
}  # fmt: skip
"""By the number of a migration, the columns that it adds. Whole tables and indexes need none: those that are
missing are made whenever a router connects."""

VERSION = max(_ADDED)


def bring_up_to_date(connection: Connection) -> None:
    """Make the tables that are missing, and run the migrations that the others have not seen.

    A table that is made anew has the newest columns: a migration adds what is not there yet. In a transaction
    of its own, so that of many routers that start at once the first does it.
    """
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    for table in _TABLES.sorted_tables:
        connection.execute(CreateTable(table, if_not_exists=True))
    before = connection.scalar(select(SCHEMA_VERSION.c.number)) or 0
    for number in range(before + 1, VERSION + 1):
        for column in _ADDED[number]:
            _add(connection, column)
    for table in _TABLES.sorted_tables:
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            connection.execute(CreateIndex(index, if_not_exists=True))
    if before < VERSION:
        connection.execute(delete(SCHEMA_VERSION))
        connection.execute(insert(SCHEMA_VERSION), [{"number": VERSION}])


def _add(connection: Connection, column: Column[object]) -> None:
    table = column.table
    present = {one["name"] for one in inspect(connection).get_columns(table.name)}
    if column.name not in present:
        described = CreateColumn(column).compile(dialect=connection.dialect)
        connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {described}")
