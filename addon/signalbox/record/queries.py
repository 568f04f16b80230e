"""What the ledger tells: sums, groups, courses over time, percentiles and rows, of SQLite or PostgreSQL.

All is added up in the database, over a connection that cannot write; a router may be writing meanwhile. Every
call blocks, so it is made on a thread, never on the event loop. Moments are Unix milliseconds, money is USD.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, timedelta, tzinfo
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import msgspec
from sqlalchemy import (
    URL,
    BigInteger,
    ColumnElement,
    Connection,
    Engine,
    Float,
    FromClause,
    Integer,
    Row,
    RowMapping,
    Select,
    String,
    and_,
    case,
    cast,
    create_engine,
    event,
    func,
    inspect,
    literal,
    null,
    or_,
    select,
)
from sqlalchemy.pool import NullPool

from signalbox import database
from signalbox.anthropic.api import TOKEN_FIELDS
from signalbox.config.fields import parse_duration
from signalbox.config.rules import LedgerSettings
from signalbox.database import ERRORS, FILE, ledger_url, reason
from signalbox.database_errors import DatabaseError
from signalbox.record.entry import milliseconds
from signalbox.record.prefixes import CachedBlock, unpacked
from signalbox.record.tables import ATTEMPTS, PREFIXES, REQUESTS

type By = Literal["model", "provider", "rule", "day", "session", "client", "project", "agent", "cache"]
"""What requests are grouped by; `day` is local, `cache` the cause of a miss, all `message N` as `message`."""

_COLUMNS: dict[By, str] = {
    "model": "model",
    "provider": "backend",
    "rule": "rule",
    "session": "session",
    "client": "client",
    "project": "project",
    "agent": "agent",
}
_LOCK_TIMEOUT = 2.0
"""Seconds that a read waits for a router that is just changing the file's tables."""


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which requests count; what is None does not matter."""

    provider: str | None = None
    """The one that answered last."""
    model: str | None = None
    """As asked for, or as sent."""
    client: str | None = None
    session: str | None = None
    project: str | None = None
    rule: str | None = None
    status: str | None = None
    """`success`, `error`, `cancelled`, or the status of the answer such as `429`."""
    since: datetime | None = None
    """The first moment that counts."""
    until: datetime | None = None
    """The first moment that counts no more."""


EVERYTHING = Filter()
_MONEY = ("cost", "list_cost", "saved")
AT_A_TIME = 100
"""Rows that are fetched at a time where there may be many."""
LATEST = 5000
"""Requests that are looked at for values to choose from."""


def parse_moment(written: str, now: datetime) -> datetime:
    """`7d` back from `now`, `2026-11-29`, or `2026-11-29T14:30` with or without a zone, else local.

    Raises ValueError.
    """
    with suppress(ValueError, OverflowError):
        if re.match(r"\d{4}-", written):
            return datetime.fromisoformat(written).astimezone()
        return now - timedelta(seconds=parse_duration(written))
    raise ValueError(
        f"{written!r} is neither a duration such as 30m, 12h or 7d nor a date such as 2026-11-29"
    )


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over requests."""

    requests: int = 0
    errors: int = 0
    cancelled: int = 0
    input_tokens: int = 0
    """Those that were neither read from a cache nor written to it."""
    output_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    cost: float | None = None
    """Of the requests whose price is known; None where there is none."""
    list_cost: float | None = None
    """The same tokens of the models asked for, at Anthropic's list prices; None where there is none."""
    saved: float | None = None
    """`list_cost` less `cost`, of the requests where both are known; None where there is none."""
    cache_hit: int | None = None
    """Percent of all input tokens that were read from a cache; None without input."""
    unpriced: int = 0
    """Requests that used tokens whose price is not known."""
    first: int | None = None
    """When the first of them came."""
    last: int | None = None


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds; None where nothing was measured."""

    median_ms: int | None = None
    p95_ms: int | None = None
    first_byte_median_ms: int | None = None
    first_byte_p95_ms: int | None = None


class LedgerSource:
    """Where the ledger is; for any number of threads."""

    def __init__(self, folder: Path, url: str = "sqlite") -> None:
        """`url` is the `ledger` of the rules: `sqlite` is the file in `folder`, which need not exist yet."""
        location = ledger_url(folder, LedgerSettings(url))
        self._file: Path | None = None
        if location.get_backend_name() == "sqlite":
            self._file = Path(location.database or FILE)
        self._location = location
        self._engine: Engine | None = None
        self._lock = Lock()
        """Of `_engine`, which is made at first use: the driver of PostgreSQL may be missing."""

    @contextmanager
    def open(self) -> Iterator["LedgerReader"]:
        """Read the ledger as it is at this moment. Raises DatabaseError, also from within the block."""
        try:
            with self._connect() as connection:
                yield LedgerReader(connection)
        except ERRORS as error:
            raise DatabaseError(reason(error)) from error

    @staticmethod
    @contextmanager
    def empty() -> Iterator["LedgerReader"]:
        """A ledger without any request, for where there is none that can be read."""
        with _nothing() as connection:
            yield LedgerReader(connection)

    def close(self) -> None:
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        if self._file is not None and not self._file.exists():
            with _nothing() as connection:
                yield connection
            return
        with self._lock:
            if self._engine is None:
                self._engine = _file_engine(self._file) if self._file else _server_engine(self._location)
            engine = self._engine
        with engine.connect() as connection, connection.begin():
            if inspect(connection).has_table(REQUESTS.name):
                yield connection
                return
        with _nothing() as connection:  # its router has only just made the file
            yield connection


def _file_engine(file: Path) -> Engine:
    read_only = {"mode": "ro", "uri": "true"}
    engine = create_engine(
        URL.create("sqlite", database=file.resolve().as_uri(), query=read_only),
        connect_args={"timeout": _LOCK_TIMEOUT},
        poolclass=NullPool,  # a router may set a damaged file aside, and begin another of that name
    )

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        """Python's own driver begins no transaction to read, so that each query would see another moment."""
        connection.exec_driver_sql("BEGIN")

    return engine


def _server_engine(location: URL) -> Engine:
    return database.engine(
        location,
        pool_pre_ping=True,
        isolation_level="REPEATABLE READ",
        execution_options={"postgresql_readonly": True},
    )


@contextmanager
def _nothing() -> Iterator[Connection]:
    """A ledger without any request."""
    engine = create_engine("sqlite://")
    REQUESTS.metadata.create_all(engine)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


class LedgerReader:
    """The ledger at one moment, until its block ends. Every method raises what `LedgerSource.open` turns into
    DatabaseError."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._requests: FromClause = _with_all_columns(connection)

    # sums

    def totals(self, which: Filter = EVERYTHING) -> Totals:
        (row,) = self._sums(which, {})
        return rounded(_totals(row))

    def grouped(
        self, which: Filter, by: By, *, limit: int | None = None, newest: bool = False
    ) -> dict[str | None, Totals]:
        """By group its sums: days in their order, others by their number of requests, most first.

        `newest`: by their last request instead, newest first. `limit`: no more groups than these.
        """
        if by == "day":
            return self._days(which)
        key = self._key(by)
        count = func.max(self._requests.c.ts) if newest else func.count()
        rows = self._sums(which, {"key": key}, order=(count.desc(), key.nulls_last()), limit=limit)
        return {row["key"]: rounded(_totals(row)) for row in rows}

    def series(self, which: Filter, edges: Sequence[datetime]) -> list[Totals]:
        """The sums of each part of time between two neighbours of `edges`, which ascend."""
        return [rounded(parts.get(None, Totals())) for parts in self._parts(which, edges, None)]

    def grouped_series(
        self, which: Filter, edges: Sequence[datetime], by: By
    ) -> list[dict[str | None, Totals]]:
        """The same by group; a group is missing where it has no request. `by` is not `day`. Money is not
        rounded, so that parts can be added up."""
        return self._parts(which, edges, by)

    def latency(self, which: Filter = EVERYTHING, *, first_byte: bool = True) -> Latency:
        """Without the times of first bytes it takes half as long."""
        return self._latency(which, literal(None, String), first_byte).get(None, Latency())

    def grouped_latency(self, which: Filter, by: By, *, first_byte: bool = True) -> dict[str | None, Latency]:
        if by != "day":
            return self._latency(which, self._key(by), first_byte)
        edges = self._day_edges(which)
        found = self._latency(_within(which, edges), cast(self._part(edges), String), first_byte)
        return {_day(edges[int(part or 0)]): one for part, one in found.items()}

    # rows

    def count(self, which: Filter = EVERYTHING) -> int:
        return (
            self._connection.scalar(
                select(func.count()).select_from(self._requests).where(*self._where(which))
            )
            or 0
        )

    def requests(
        self, which: Filter = EVERYTHING, *, limit: int = 100, offset: int = 0, oldest: bool = False
    ) -> list[RowMapping]:
        """Rows with the columns of `REQUESTS`, newest first, or `oldest` first."""
        columns = self._requests.c
        order = (columns.ts, columns.id) if oldest else (columns.ts.desc(), columns.id.desc())
        found = select(self._requests).where(*self._where(which)).order_by(*order)
        return list(self._connection.execute(found.limit(limit).offset(offset)).mappings())

    def each_request(self, which: Filter, *, limit: int, offset: int = 0) -> Iterator[Row[Any]]:
        """The same rows as tuples, of which only a few are in memory at a time."""
        columns = self._requests.c
        found = (
            select(self._requests).where(*self._where(which)).order_by(columns.ts.desc(), columns.id.desc())
        )
        yield from self._connection.execute(
            found.limit(limit).offset(offset), execution_options={"yield_per": AT_A_TIME}
        )

    def choices(self, most: int) -> dict[str, list[str]]:
        """What the latest requests have as `provider`, `model`, `client`, `project` and `rule`: by each of
        these up to `most` values, in their order."""
        columns = self._requests.c
        latest = select(self._requests).order_by(columns.ts.desc()).limit(LATEST).subquery().c
        named = {"provider": latest.backend, "model": latest.model, "client": latest.client}
        named |= {"project": latest.project, "rule": latest.rule}
        return {
            name: sorted(
                self._connection.scalars(
                    select(column).where(column.is_not(None), column != "").distinct().limit(most)
                )
            )
            for name, column in named.items()
        }

    def attempts(self, requests: Sequence[Any]) -> dict[Any, list[RowMapping]]:
        """By the id of a request its attempts in their order, as rows with the columns of `ATTEMPTS`."""
        found = select(ATTEMPTS).where(ATTEMPTS.c.request.in_(requests)).order_by(ATTEMPTS.c.number)
        by_request: dict[Any, list[RowMapping]] = {}
        for row in self._connection.execute(found).mappings():
            by_request.setdefault(row["request"], []).append(row)
        return by_request

    def agents(self, requests: Sequence[Any]) -> dict[Any, str | None]:
        """By the id of a request the id of the subagent that sent it, as long as digests are kept."""
        found = select(PREFIXES.c.request, PREFIXES.c.agent_id).where(PREFIXES.c.request.in_(requests))
        return {row.request: row.agent_id for row in self._connection.execute(found)}

    def blocks(self, requests: Sequence[Any]) -> dict[Any, tuple[CachedBlock, ...]]:
        """By the id of a request its cacheable blocks, as long as digests are kept."""
        found = select(PREFIXES.c.request, PREFIXES.c.blocks).where(PREFIXES.c.request.in_(requests))
        return {row.request: unpacked(row.blocks) for row in self._connection.execute(found)}

    # sessions

    def sessions(self, which: Filter = EVERYTHING, *, limit: int, offset: int = 0) -> list[dict[str, Any]]:
        """Sessions by their last request, newest first: `session`, the sums of `Totals`, `subagents` (their
        requests), `misses`, `project`, `client`, and `models` (asked for, with their tier; most used first).
        """
        columns = self._requests.c
        last = func.max(columns.ts).desc()
        named = select(columns.session).where(columns.session.is_not(None), *self._where(which))
        page = named.group_by(columns.session).order_by(last, columns.session).limit(limit).offset(offset)
        names = list(self._connection.scalars(page))
        is_one = columns.session.in_(names)
        found = {
            row["session"]: {
                "session": row["session"],
                "models": [],
                **msgspec.structs.asdict(rounded(_totals(row))),
            }
            for row in self._sums(which, {"session": columns.session}, only=is_one)
        }
        of_each = select(
            columns.session,
            func.count(case((columns.agent == "subagent", 1))).label("subagents"),
            func.count(columns.cache_cause).label("misses"),
            func.max(columns.project).label("project"),
            func.max(columns.client).label("client"),
        ).where(is_one, *self._where(which))
        for row in self._connection.execute(of_each.group_by(columns.session)).mappings():
            found[row["session"]].update(row)
        number = func.count().desc()
        models = select(columns.session, columns.model, columns.tier).where(is_one, *self._where(which))
        models = models.group_by(columns.session, columns.model, columns.tier).order_by(number, columns.model)
        for session, model, tier in self._connection.execute(models):
            found[session]["models"].append((model, tier))
        return [found[name] for name in names]

    def session_summary(self, session: str) -> dict[str, Any] | None:
        """What `/signalbox/sessions/ID` tells (the contract, section 11) but for `quota`; None where no
        request of that session is on record.

        Provider, model, rule and account are those of the last request of the conversation itself: what its
        subagents and the client's own small questions use is no news in a status line.
        """
        which = Filter(session=session)
        columns = self._requests.c
        is_main = case(
            (columns.request_class == "main", 0),
            (and_(columns.request_class.is_(None), columns.agent == "main"), 1),
            else_=2,
        )
        last = (
            select(
                columns.session,
                columns.backend.label("provider"),
                columns.upstream_model.label("model"),
                columns.rule,
                columns.account,
            )
            .where(*self._where(which))
            .order_by(is_main, columns.ts.desc(), columns.id.desc())
            .limit(1)
        )
        row = self._connection.execute(last).mappings().first()
        if row is None:
            return None
        sums = msgspec.structs.asdict(self.totals(which))
        shown = (*TOKEN_FIELDS, "cost", "list_cost", "saved", "cache_hit")
        return {
            "session": session,
            "requests": sums["requests"],
            **{name: row[name] for name in ("provider", "model", "rule", "account")},
            **{name: sums[name] for name in shown},
        }

    # how

    def _sums(
        self,
        which: Filter,
        keys: Mapping[str, ColumnElement[Any]],
        *,
        order: Sequence[ColumnElement[Any]] = (),
        limit: int | None = None,
        only: ColumnElement[bool] | None = None,
    ) -> Sequence[RowMapping]:
        columns = self._requests.c
        used = sum((columns[name] for name in TOKEN_FIELDS[1:]), columns[TOKEN_FIELDS[0]])
        found = select(
            *(key.label(name) for name, key in keys.items()),
            func.count().label("requests"),
            _number(columns.status == "error").label("errors"),
            _number(columns.status == "cancelled").label("cancelled"),
            *(
                cast(func.coalesce(func.sum(columns[name]), 0), BigInteger).label(name)
                for name in TOKEN_FIELDS
            ),
            func.sum(columns.cost).label("cost"),
            func.sum(columns.list_cost).label("list_cost"),
            func.sum(columns.list_cost - columns.cost).label("saved"),
            _number(and_(columns.cost.is_(None), used > 0)).label("unpriced"),
            func.min(columns.ts).label("first"),
            func.max(columns.ts).label("last"),
        )
        found = found.select_from(self._requests).where(*self._where(which))
        if only is not None:
            found = found.where(only)
        found = found.group_by(*keys.values()).order_by(*order).limit(limit)
        return self._connection.execute(found).mappings().all()

    def _parts(
        self, which: Filter, edges: Sequence[datetime], by: By | None
    ) -> list[dict[str | None, Totals]]:
        parts: list[dict[str | None, Totals]] = [{} for _ in edges[1:]]
        keys = {"part": self._part(edges)} | ({"key": self._key(by)} if by else {})
        for row in self._sums(_within(which, edges), keys) if parts else ():
            parts[row["part"]][row["key"] if by else None] = _totals(row)
        return parts

    def _days(self, which: Filter) -> dict[str | None, Totals]:
        edges = self._day_edges(which)
        parts = self._parts(which, edges, None)
        return {_day(edge): rounded(part[None]) for edge, part in zip(edges, parts, strict=False) if part}

    def _day_edges(self, which: Filter) -> list[datetime]:
        """Local midnights, from the one before the first request to the one after the last."""
        span = select(func.min(self._requests.c.ts), func.max(self._requests.c.ts)).where(*self._where(which))
        first, last = self._connection.execute(span).one()
        if first is None:
            return []
        return midnights(_utc(first), _utc(last))

    def _part(self, edges: Sequence[datetime]) -> ColumnElement[int]:
        """The number of the part of time that a request belongs to: a binary search, written as SQL, because
        days and weeks differ in length and the two databases in their calendars."""

        def search(low: int, high: int) -> ColumnElement[int]:
            if high - low <= 1:
                return literal(low, Integer)
            middle = (low + high) // 2
            is_before = self._requests.c.ts < milliseconds(edges[middle])
            return case((is_before, search(low, middle)), else_=search(middle, high))

        return search(0, len(edges) - 1)

    def _latency(self, which: Filter, key: ColumnElement[Any], first_byte: bool) -> dict[str | None, Latency]:
        """The 95th of a hundred by nearest rank; the median of an even number is the mean of the middle."""
        columns = self._requests.c
        found: dict[str | None, dict[str, int]] = {}
        measured = {"": columns.latency_ms} | ({"first_byte_": columns.first_byte_ms} if first_byte else {})
        is_server = self._connection.dialect.name == "postgresql"
        for prefix, column in measured.items():
            query = self._percentiles(which, key, column) if is_server else self._ranks(which, key, column)
            for group, median, p95 in self._connection.execute(query):
                found.setdefault(group, {}).update(
                    {f"{prefix}median_ms": round(median), f"{prefix}p95_ms": p95}
                )
        return {group: Latency(**values) for group, values in found.items()}

    def _percentiles(
        self, which: Filter, key: ColumnElement[Any], column: ColumnElement[int]
    ) -> Select[tuple[Any, float, int]]:
        median = func.percentile_cont(0.5).within_group(column)
        p95 = func.percentile_disc(0.95).within_group(column)
        query = select(key, median, p95).select_from(self._requests)
        return query.where(*self._where(which), column.is_not(None)).group_by(key)

    def _ranks(
        self, which: Filter, key: ColumnElement[Any], column: ColumnElement[int]
    ) -> Select[tuple[Any, float, int]]:
        """The same without functions for it, which SQLite has not."""
        ranked = (
            select(
                key.label("key"),
                column.label("value"),
                func.row_number().over(partition_by=key, order_by=column).label("rank"),
                func.count().over(partition_by=key).label("number"),
            )
            .where(*self._where(which), column.is_not(None))
            .select_from(self._requests)
            .subquery()
        ).c
        is_middle = or_(ranked.rank == (ranked.number + 1) // 2, ranked.rank == (ranked.number + 2) // 2)
        is_95th = ranked.rank == (ranked.number * 95 + 99) // 100
        return select(
            ranked.key,
            func.avg(case((is_middle, cast(ranked.value, Float)))),
            func.max(case((is_95th, ranked.value))),
        ).group_by(ranked.key)

    def _key(self, by: By) -> ColumnElement[Any]:
        columns = self._requests.c
        if by == "cache":
            is_message = columns.cache_cause.like("message %")
            return case((is_message, "message"), else_=columns.cache_cause)
        return columns[_COLUMNS[by]]

    def _where(self, which: Filter) -> Iterator[ColumnElement[bool]]:
        columns = self._requests.c
        if which.provider is not None:
            yield columns.backend == which.provider
        if which.model is not None:
            yield or_(columns.model == which.model, columns.upstream_model == which.model)
        for name in ("client", "session", "project", "rule"):
            if (value := getattr(which, name)) is not None:
                yield columns[name] == value
        if which.status is not None:
            is_code = re.fullmatch(r"[1-5]\d\d", which.status)
            yield columns.http_status == int(which.status) if is_code else columns.status == which.status
        if which.since is not None:
            yield columns.ts >= milliseconds(which.since)
        if which.until is not None:
            yield columns.ts < milliseconds(which.until)


def midnights(first: datetime, last: datetime, zone: tzinfo | None = None) -> list[datetime]:
    """Each midnight from that before `first` to that after `last`, in this zone; None is the local one."""
    day = first.astimezone(zone).date()
    edges: list[datetime] = []
    while not edges or edges[-1] <= last:
        edges.append(_midnight(day, zone))
        day += timedelta(days=1)
    return edges


def _midnight(day: date, zone: tzinfo | None) -> datetime:
    naive = datetime(day.year, day.month, day.day)  # noqa: DTZ001 (made aware here)
    return naive.astimezone() if zone is None else naive.replace(tzinfo=zone)


def _with_all_columns(connection: Connection) -> FromClause:
    """The table of requests; in a file that no router of this version has opened yet columns are missing,
    and nothing is known of them."""
    present = {column["name"] for column in inspect(connection).get_columns(REQUESTS.name)}
    if all(column.name in present for column in REQUESTS.c):
        return REQUESTS
    known = (c if c.name in present else cast(null(), c.type).label(c.key) for c in REQUESTS.c)
    return select(*known).subquery(REQUESTS.name)


def _within(which: Filter, edges: Sequence[datetime]) -> Filter:
    """Narrowed to what lies between the first and the last edge."""
    if not edges:
        return which
    return msgspec.structs.replace(
        which,
        since=max(filter(None, (which.since, edges[0]))),
        until=min(filter(None, (which.until, edges[-1]))),
    )


def _number(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.count(case((condition, 1)))


def _totals(row: RowMapping) -> Totals:
    made: dict[str, Any] = {
        name: row[name] for name in ("requests", "errors", "cancelled", "unpriced", "first", "last")
    }
    tokens = {name: int(row[name]) for name in TOKEN_FIELDS}
    money: dict[str, Any] = {name: row[name] for name in _MONEY}
    return Totals(**made, **tokens, **money, cache_hit=_cache_hit(tokens))


def added(parts: Iterable[Totals]) -> Totals:
    """The sums of several."""
    found = list(parts)
    tokens = {name: sum(getattr(one, name) for one in found) for name in TOKEN_FIELDS}
    money: dict[str, Any] = {}
    for name in _MONEY:
        known = [amount for one in found if (amount := getattr(one, name)) is not None]
        money[name] = math.fsum(known) if known else None
    return Totals(
        requests=sum(one.requests for one in found),
        errors=sum(one.errors for one in found),
        cancelled=sum(one.cancelled for one in found),
        unpriced=sum(one.unpriced for one in found),
        first=min((one.first for one in found if one.first is not None), default=None),
        last=max((one.last for one in found if one.last is not None), default=None),
        **tokens,
        **money,
        cache_hit=_cache_hit(tokens),
    )


def rounded(totals: Totals) -> Totals:
    """With money to 6 decimals, as it is told."""
    money = {name: getattr(totals, name) for name in _MONEY}
    amounts = {name: amount if amount is None else round(amount, 6) for name, amount in money.items()}
    return msgspec.structs.replace(totals, **amounts)


def _cache_hit(tokens: Mapping[str, int]) -> int | None:
    read = tokens["cache_read_input_tokens"]
    seen = tokens["input_tokens"] + tokens["cache_creation_input_tokens"] + read
    return round(100 * read / seen) if seen else None


def _utc(moment: int) -> datetime:
    return datetime.fromtimestamp(moment / 1000, UTC)


def _day(midnight: datetime) -> str:
    return midnight.date().isoformat()
