"""State that routers on many machines share in one PostgreSQL, besides the ledger: issuers of thinking
blocks, quota windows, cooldowns and open circuits.

Each class is a connection for one thread. While the database is unavailable, each router uses the state that
it has.
"""

import os
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from secrets import token_hex

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Float,
    LargeBinary,
    MetaData,
    String,
    Table,
    delete,
    func,
    select,
)
from sqlalchemy.dialects.postgresql import insert

from signalbox.database import Database, Schema, database_url, keys_table, shared_key, version_table
from signalbox.routing.quota import SharedWindow
from signalbox.state.limits import BlockRow, Limits

PAGE = 1000
"""Rows that are read into memory at once."""
LOCK_TIMEOUT = 1.0
"""Seconds that a write waits for another router."""
LEARNING = 0x5167_6E63
"""Key of the advisory lock under which blocks are numbered, so that their numbers are visible in order."""
FORGOTTEN = 86400.0
"""Seconds after its end for which a cooldown is kept."""
CAUSE_LENGTH = 200

_TABLES = MetaData()

ISSUED = Table(
    "thinking_issued",
    _TABLES,
    Column("number", BigInteger, primary_key=True),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("provider", String, nullable=False),
)
"""One row per thinking block: its digest under the key `thinking`, and the provider that issued it."""

WINDOWS = Table(
    "quota_windows",
    _TABLES,
    Column("provider", String, primary_key=True),
    Column("account", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("heard", Float(53), nullable=False),
    Column("state", LargeBinary, nullable=False),
)
"""One row per quota window, as JSON; with an empty name the state of the account. `heard` is when the
provider last reported it, in Unix seconds of the router that observed it."""

BLOCKS = Table(
    "provider_blocks",
    _TABLES,
    Column("kind", String, primary_key=True),
    Column("provider", String, primary_key=True),
    Column("scope", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("router", String, nullable=False),
    Column("at", Float(53), nullable=False),
    Column("until", Float(53), nullable=False),
    Column("reason", String, nullable=False),
    Column("cause", String, nullable=False),
)
"""One row per open circuit or cooldown. `at` and `until` are in Unix seconds of the database; `until` is 0 if
it has ended. A secret key is named by its digest under the key `health`."""

KEYS = keys_table(_TABLES)

SCHEMA = Schema(_TABLES, version_table("shared_version", _TABLES), {1: ()})

_NOW = func.extract("epoch", func.clock_timestamp())


class SharedIssuers:
    """The issuers of thinking blocks. All methods but `close` raise DatabaseError."""

    def __init__(self, url: str) -> None:
        self._database = Database(database_url(url), SCHEMA, lock_timeout=LOCK_TIMEOUT)

    @property
    def shown(self) -> str:
        """The database, for people."""
        return self._database.shown

    def key(self, own: bytes) -> bytes:
        """The key of all digests; in a new database it becomes `own`."""
        with self._database.begun() as connection:
            return shared_key(connection, KEYS, "thinking", own)

    def learn(self, learned: Sequence[tuple[bytes, str]], limit: int) -> None:
        """Adds (digest, provider) of blocks that have no issuer yet; keeps the last `limit` blocks."""
        rows = [{"digest": digest, "provider": provider} for digest, provider in learned]
        with self._database.begun() as connection:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LEARNING})")
            connection.execute(insert(ISSUED).on_conflict_do_nothing(index_elements=["digest"]), rows)
            newest = select(func.max(ISSUED.c.number)).scalar_subquery()
            connection.execute(delete(ISSUED).where(ISSUED.c.number <= newest - limit))

    def after(self, number: int) -> Iterator[list[tuple[int, bytes, str]]]:
        """Pages of (number, digest, provider), in order, of the blocks added after `number`."""
        query = select(ISSUED.c.number, ISSUED.c.digest, ISSUED.c.provider).order_by(ISSUED.c.number)
        with self._database.begun() as connection:
            found = connection.execute(query.where(ISSUED.c.number > number))
            while page := found.fetchmany(PAGE):
                yield [(number, bytes(digest), provider) for number, digest, provider in page]

    def close(self) -> None:
        self._database.close()


class SharedLimits:
    """Quota windows, cooldowns and circuits. All methods but `close` raise DatabaseError."""

    def __init__(self, url: str) -> None:
        self._database = Database(database_url(url), SCHEMA, lock_timeout=LOCK_TIMEOUT)
        self._router = token_hex(8)
        self._key = b""

    @property
    def shown(self) -> str:
        """The database, for people."""
        return self._database.shown

    def digest(self, secret: str) -> str:
        """The name of a secret key in the database. Empty before the first exchange."""
        if not self._key:
            return ""
        return blake2b(secret.encode(errors="surrogateescape"), key=self._key, digest_size=16).hexdigest()

    def exchange(self, new: Limits) -> Limits:
        """Writes `new`. Returns all windows, and the blocks that other routers wrote last."""
        with self._database.begun() as connection:
            if not self._key:
                self._key = shared_key(connection, KEYS, "health", os.urandom(32))
            if new.windows:
                self._write_windows(connection, new.windows)
            if new.blocks:
                self._write_blocks(connection, new.blocks)
            windows = [SharedWindow(*row) for row in connection.execute(select(WINDOWS))]
            others = select(
                BLOCKS.c.kind,
                BLOCKS.c.provider,
                BLOCKS.c.scope,
                BLOCKS.c.name,
                func.greatest(BLOCKS.c.until - _NOW, 0.0),
                BLOCKS.c.reason,
                BLOCKS.c.cause,
                BLOCKS.c.at,
            ).where(BLOCKS.c.router != self._router)
            blocks = [BlockRow(*row[:4], float(row[4]), *row[5:]) for row in connection.execute(others)]
        return Limits(windows, blocks)

    def close(self) -> None:
        self._database.close()

    def _write_windows(self, connection: Connection, rows: Sequence[SharedWindow]) -> None:
        added = insert(WINDOWS)
        newer = {"heard": added.excluded.heard, "state": added.excluded.state}
        connection.execute(
            added.on_conflict_do_update(
                index_elements=list(WINDOWS.primary_key),
                set_=newer,
                where=added.excluded.heard > WINDOWS.c.heard,
            ),
            [row._asdict() for row in sorted(rows)],
        )

    def _write_blocks(self, connection: Connection, rows: Sequence[BlockRow]) -> None:
        now = float(connection.scalar(select(_NOW)) or 0)
        added = insert(BLOCKS)
        newer = {
            column.name: added.excluded[column.name] for column in BLOCKS.columns if not column.primary_key
        }
        connection.execute(
            added.on_conflict_do_update(index_elements=list(BLOCKS.primary_key), set_=newer),
            [
                {
                    "kind": row.kind,
                    "provider": row.provider,
                    "scope": row.scope,
                    "name": self.digest(row.name) if row.scope == "key" else row.name,
                    "router": self._router,
                    "at": now,
                    "until": now + row.remaining if row.remaining > 0 else 0.0,
                    "reason": row.reason,
                    "cause": row.cause[:CAUSE_LENGTH].replace("\0", "?"),
                }
                for row in sorted(rows)
            ],
        )
        connection.execute(delete(BLOCKS).where(BLOCKS.c.at < now - FORGOTTEN, BLOCKS.c.until < now))
