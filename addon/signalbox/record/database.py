"""The ledger's rows in its database, as one thread writes and reads them."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace
from sqlalchemy import (
    URL,
    Connection,
    Dialect,
    String,
    Table,
    bindparam,
    delete,
    func,
    make_url,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from signalbox.anthropic.api import TOKEN_FIELDS
from signalbox.database import LOCK_TIMEOUT, Database
from signalbox.record import prefixes
from signalbox.record.entry import AttemptRow, Entry, milliseconds
from signalbox.record.tables import ATTEMPTS, PREFIXES, REQUESTS, SCHEMA, SPOOLED

LONGEST = 500
"""Characters of a text that are written: callers name models."""
TURNS_KEPT = 100
"""Conversations whose last turn is kept in memory; the digests of one may take 50 KB."""

FORGETTING = 0x5167_6E62
"""Key of the advisory lock of the router that deletes old rows."""

_ALL_TOKENS = func.sum(sum((ATTEMPTS.c[name] for name in TOKEN_FIELDS[1:]), ATTEMPTS.c[TOKEN_FIELDS[0]]))


# Statements are built once: to build one takes longer than to run it.
_NOTE = (
    update(SPOOLED)
    .where(SPOOLED.c.name == bindparam("spool"), SPOOLED.c.number == bindparam("before"))
    .values(number=bindparam("upto"), ts=bindparam("now"))
)
_LAST_ID = text("SELECT seq FROM sqlite_sequence WHERE name = 'requests'")
_OPEN = """
WITH noted AS (UPDATE spooled SET number = %(upto)s, ts = %(now)s
    WHERE name = %(spool)s AND number = %(before)s RETURNING 1)
SELECT (SELECT count(*) FROM noted),
    (SELECT coalesce(sum(number), 0) FROM spooled WHERE name <> %(spool)s),
    ARRAY(SELECT nextval(pg_get_serial_sequence('requests', 'id')) FROM generate_series(1, %(rows)s))
"""
"""`_NOTE`, `_OTHERS` and the ids of the requests that are added next, in one way to the server and back: each
takes longer than what is done there."""
_OTHERS = select(func.sum(SPOOLED.c.number)).where(SPOOLED.c.name != bindparam("spool"))
_LAST_TURN = (
    select(PREFIXES, ATTEMPTS)
    .join(REQUESTS, REQUESTS.c.id == PREFIXES.c.request)
    .join(ATTEMPTS, ATTEMPTS.c.request == PREFIXES.c.request)
    .where(
        PREFIXES.c.session == bindparam("session", type_=String),
        PREFIXES.c.agent_id.is_not_distinct_from(bindparam("agent_id", type_=String)),
        REQUESTS.c.request_class.is_not_distinct_from(bindparam("request_class", type_=String)),
        REQUESTS.c.status == "success",
        ATTEMPTS.c.kind == "success",
    )
    .order_by(PREFIXES.c.ts.desc(), PREFIXES.c.request.desc(), ATTEMPTS.c.number.desc())
    .limit(1)
)


class _Opened(NamedTuple):
    """How a transaction begins."""

    is_noted: bool
    """Whether the spool was written up to the entry before, as expected, and is noted up to the last one."""
    version: int
    ids: Sequence[int]
    """Of the requests that are added next, in order."""


class LedgerDatabase:
    """For one thread. All methods but `close` raise DatabaseError."""

    def __init__(self, url: URL, *, lock_timeout: float = LOCK_TIMEOUT) -> None:
        self._database = Database(url, SCHEMA, lock_timeout=lock_timeout)
        self._turns: OrderedDict[prefixes.Conversation, prefixes.CacheTurn] = OrderedDict()
        """The last turns of the conversations that were written last, while no other router has written."""
        self._turns_of: tuple[str, int] | None = None
        """The spool and the version that they are of."""

    @property
    def shown(self) -> str:
        """Its name, for people."""
        return self._database.shown

    def close(self) -> None:
        """Disconnect; the next use connects again."""
        self._turns.clear()
        self._database.close()

    def write(self, spool: str, entries: Sequence[tuple[int, Entry]], upto: int) -> list[Entry]:
        """Write the entries of a router's spool that are missing here, and note that all are here up to that
        number; returns those, with what they missed. All or none: an entry is never written twice, also where
        it is not known whether the transaction before, whose connection was lost, has succeeded.

        What each entry missed of the cache is found by the entry before it in its conversation, whichever
        router answered that.

        Raises UnwritableError where the database refuses a value.
        """
        try:
            with self._database.begun() as connection:
                before = entries[0][0] - 1 if entries else upto - 1
                now = milliseconds(datetime.now(UTC))
                note = {"spool": spool, "before": before, "upto": upto, "now": now}
                opened = self._open(connection, note, len(entries))
                if not opened.is_noted:  # not the next, or the first of a spool
                    before = _claimed(connection, spool, now)
                    if upto > before:
                        connection.execute(_NOTE, note | {"before": before})
                missing = [entry for number, entry in entries if number > before]
                written = list(self._with_misses(connection, (spool, opened.version), missing))
                _insert(connection, opened.ids, written)
        except BaseException:
            self._turns.clear()  # of entries that are not there
            raise
        return written

    def _open(self, connection: Connection, note: Mapping[str, Any], rows: int) -> "_Opened":
        if not self._database.is_sqlite:
            noted, others, ids = connection.exec_driver_sql(_OPEN, {**note, "rows": rows}).one()
            return _Opened(noted == 1, int(others), ids)
        is_noted = connection.execute(_NOTE, note).rowcount == 1
        last = connection.scalar(_LAST_ID) or 0  # there is one writer: this transaction
        return _Opened(is_noted, self._version(connection, ""), range(last + 1, last + rows + 1))

    def _with_misses(
        self, connection: Connection, present: tuple[str, int], entries: Sequence[Entry]
    ) -> Iterator[Entry]:
        if present != self._turns_of:
            self._turns.clear()
            self._turns_of = present
        for entry in entries:
            conversation, turn = prefixes.conversation_of(entry), prefixes.turn_of(entry)
            if conversation is None or turn is None:
                yield entry
                continue
            before = self._turns.pop(conversation, None) or _last_turn(connection, conversation)
            missed = prefixes.miss(before, turn) if before is not None else None
            self._turns[conversation] = turn
            if len(self._turns) > TURNS_KEPT:
                self._turns.popitem(last=False)
            yield entry if missed is None else _with_miss(entry, missed)

    def used(self, since: Mapping[str, int]) -> dict[str, int]:
        """By provider, tokens of all four kinds, of the attempts that began at that moment or later."""
        with self._database.begun() as connection:
            return {
                provider: int(
                    connection.scalar(
                        select(_ALL_TOKENS).where(
                            ATTEMPTS.c.provider == provider, ATTEMPTS.c.started >= moment
                        )
                    )
                    or 0
                )
                for provider, moment in since.items()
            }

    def version(self, spool: str) -> int:
        """A number that changes when another router than that of this spool has written."""
        with self._database.begun() as connection:
            return self._version(connection, spool)

    def _version(self, connection: Connection, spool: str) -> int:
        if self._database.is_sqlite:
            return int(connection.exec_driver_sql("PRAGMA data_version").scalar_one())
        return int(connection.scalar(_OTHERS, {"spool": spool}) or 0)

    def forget(self, before: int, prefixes_before: int, at_once: int) -> None:
        """Delete requests that came before that moment, with their attempts, and the digests of those that
        came before the other. One router at a time; the others leave it to that one. `at_once` requests are
        deleted in one transaction."""
        old = select(REQUESTS.c.id).where(REQUESTS.c.ts < before).order_by(REQUESTS.c.ts).limit(at_once)
        gone = at_once
        while gone == at_once:
            with self._database.begun() as connection:
                if not self._is_sqlite_or_first(connection):
                    return
                ids = connection.scalars(old).all()
                gone = len(ids)
                for column in (ATTEMPTS.c.request, PREFIXES.c.request, REQUESTS.c.id):
                    connection.execute(delete(column.table).where(column.in_(ids)))
        with self._database.begun() as connection:
            connection.execute(delete(SPOOLED).where(SPOOLED.c.ts < before))
            connection.execute(delete(PREFIXES).where(PREFIXES.c.ts < prefixes_before))

    def _is_sqlite_or_first(self, connection: Connection) -> bool:
        if self._database.is_sqlite:
            return True
        return bool(connection.exec_driver_sql(f"SELECT pg_try_advisory_xact_lock({FORGETTING})").scalar())


def _with_miss(entry: Entry, missed: prefixes.Miss) -> Entry:
    cost = None if entry.cache_price is None else round(missed.tokens * entry.cache_price / 1e6, 6)
    return replace(entry, cache_cause=missed.cause, missed_tokens=missed.tokens, missed_cost=cost)


def _claimed(connection: Connection, spool: str, now: int) -> int:
    """The number up to which this spool is written. Its row is locked until the transaction ends, so that one
    that was given up and still runs in the server is waited for."""
    insert_into = sqlite_insert if connection.dialect.name == "sqlite" else postgresql_insert
    row = {"name": spool, "number": 0, "ts": now}
    connection.execute(insert_into(SPOOLED).on_conflict_do_nothing(), [row])
    claim = update(SPOOLED).where(SPOOLED.c.name == spool).values(ts=now).returning(SPOOLED.c.number)
    return int(connection.scalar(claim) or 0)


def _last_turn(connection: Connection, conversation: prefixes.Conversation) -> prefixes.CacheTurn | None:
    """The last answered request of a conversation."""
    found = connection.execute(_LAST_TURN, conversation._asdict()).one_or_none()
    if found is None:
        return None
    return prefixes.CacheTurn(
        provider=found.provider,
        model=found.model,
        key=found.key,
        asked=found.blocks,
        sent=found.sent_blocks or b"",
        life=found.cache_life or prefixes.SHORT_LIFE,
        at=found.ts,
        read=found.cache_read_input_tokens,
        written=found.cache_creation_input_tokens,
        fresh=found.input_tokens,
    )


def _insert(connection: Connection, ids: Sequence[int], entries: Sequence[Entry]) -> None:
    """`ids` are those of new requests, of which there may be more than entries."""
    if not entries:
        return
    numbered = list(zip(ids, entries, strict=False))
    rows = (
        _REQUEST_ROWS.of(((id, milliseconds(entry.ts)), entry) for id, entry in numbered),
        _ATTEMPT_ROWS.of(
            ((id, number, milliseconds(attempt.started)), attempt)
            for id, entry in numbered
            for number, attempt in enumerate(entry.attempt_rows, 1)
        ),
        _PREFIX_ROWS.of(((id, milliseconds(entry.ts)), entry) for id, entry in numbered if entry.blocks),
    )
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(_ADD_ALL, tuple(map(_encoded, rows)))
        return
    for table, of_table in zip(_ALL_ROWS, rows, strict=True):
        if of_table:
            connection.exec_driver_sql(table.sqlite, [tuple(row.values()) for row in of_table])


def _encoded(rows: Sequence[Mapping[str, Any]]) -> str:
    """Bytes as base64."""
    return msgspec.json.encode(rows).decode()


_POSTGRESQL: Dialect = make_url("postgresql://").get_dialect()()


class _Rows:
    """The rows of a table, whose columns are fields of what is recorded, but for the given ones.

    The driver gets tuples, or one text in JSON: what SQLAlchemy and psycopg do with each value takes longer
    than the request's other records.
    """

    def __init__(self, table: Table, *given: str) -> None:
        columns = [table.c[name] for name in given]
        columns += [column for column in table.columns if column.key not in given]
        self._names = [column.name for column in columns]
        self._values = attrgetter(*(column.key for column in columns[len(given) :]))
        into = f"INSERT INTO {table.name} ({', '.join(f'"{name}"' for name in self._names)})"
        self.sqlite = f"{into} VALUES ({', '.join('?' * len(columns))})"
        """With a `?` for each value."""
        types = [column.type.compile(_POSTGRESQL) for column in columns]
        read = (
            f"decode(\"{name}\", 'base64')" if of == "BYTEA" else f'"{name}"'
            for name, of in zip(self._names, types, strict=True)
        )
        told = (
            f'"{name}" {"TEXT" if of == "BYTEA" else of}' for name, of in zip(self._names, types, strict=True)
        )
        source = f"json_to_recordset(%s::json) AS told({', '.join(told)})"
        self.postgresql = f"{into} SELECT {', '.join(read)} FROM {source}"  # noqa: S608 (our names)
        """With one `%s` for all rows, as `_encoded` gives them."""

    def of(self, found: Iterable[tuple[tuple[int, ...], Entry | AttemptRow]]) -> list[dict[str, Any]]:
        """`found` has the given values of each row, and what is recorded."""
        return [
            dict(zip(self._names, (*given, *map(_writable, self._values(recorded))), strict=True))
            for given, recorded in found
        ]


_REQUEST_ROWS = _Rows(REQUESTS, "id", "ts")
_ATTEMPT_ROWS = _Rows(ATTEMPTS, "request", "number", "started")
_PREFIX_ROWS = _Rows(PREFIXES, "request", "ts")
_ALL_ROWS = (_REQUEST_ROWS, _ATTEMPT_ROWS, _PREFIX_ROWS)
_ADD_ALL = (
    f"WITH requested AS ({_REQUEST_ROWS.postgresql}), attempted AS ({_ATTEMPT_ROWS.postgresql})"
    f" {_PREFIX_ROWS.postgresql}"
)
"""The rows of all three tables in one statement. Foreign keys are looked at when it ends."""


def _writable(value: Any) -> Any:
    """The value; a text shortened, with `?` for lone surrogates, which come from bytes that are not UTF-8,
    and for NUL, which PostgreSQL does not take."""
    if not isinstance(value, str) or (value.isascii() and len(value) <= LONGEST and "\0" not in value):
        return value
    return value[:LONGEST].replace("\0", "?").encode(errors="replace").decode()
