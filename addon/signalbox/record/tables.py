"""The tables of the ledger, and the numbered migrations that bring those of an older one up to date.

The same tables in SQLite and PostgreSQL. Moments are Unix milliseconds.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
)

from signalbox.anthropic.api import TOKEN_FIELDS
from signalbox.database import Schema, keys_table, version_table

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
    Column("missed_tokens", BigInteger),
    Column("missed_cost", Float),
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
    Column("cache_miss_reason", String),
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
    Column("sent_blocks", LargeBinary),
    Column("cache_life", Integer),
    Index("prefixes_ts", "ts"),
    Index("prefixes_session", "session", "ts"),
)
"""One row a request: digest and length of each of its cacheable blocks, in order, as the client sent them
and, where the router changed them, as they went upstream (`prefixes`). No text."""

KEYS = keys_table(_TABLES)

SPOOLED = Table(
    "spooled",
    _TABLES,
    Column("name", String, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("ts", BigInteger, nullable=False),
)
"""The number up to which a router's spool is in this ledger, and when that was written."""

SCHEMA_VERSION = version_table("schema_version", _TABLES)

SCHEMA = Schema(
    _TABLES,
    SCHEMA_VERSION,
    {
        1: (
            *(REQUESTS.c[name] for name in ("tier", "agent", "stream", "http_status", "error_type")),
            *(REQUESTS.c[name] for name in ("request_id", "list_cost")),
            ATTEMPTS.c.cost,
        ),
        2: tuple(REQUESTS.c[name] for name in ("request_class", "project", "account", "cache_cause")),
        3: (PREFIXES.c.sent_blocks, PREFIXES.c.cache_life, ATTEMPTS.c.cache_miss_reason),
        4: (REQUESTS.c.missed_tokens, REQUESTS.c.missed_cost),
    },
)
"""The first migration is for files of before there were any, which may lack some of these."""
