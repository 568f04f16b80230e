"""What is read from the ledger: sums, groups, courses over time, percentiles, rows and sessions."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from signalbox.database import FILE
from signalbox.database_errors import DatabaseError
from signalbox.record.entry import AttemptRow, Entry
from signalbox.record.queries import (
    Filter,
    Latency,
    LedgerReader,
    LedgerSource,
    Totals,
    midnights,
    parse_moment,
)
from signalbox.record.tables import REQUESTS
from tests.support.ledger import record

NOON = datetime(2026, 11, 19, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def entry(**fields: Any) -> Entry:
    usual: dict[str, Any] = {"ts": NOON, "model": "claude-sonnet-4-5", "backend": "zai", "status": "success"}
    return Entry(**usual | fields)


ENTRIES = [
    entry(
        upstream_model="glm-4.7",
        input_tokens=100,
        output_tokens=20,
        cache_creation_input_tokens=300,
        cache_read_input_tokens=600,
        cost=0.25,
        list_cost=1.0,
        latency_ms=100,
        first_byte_ms=10,
        session="s1",
        client="laptop",
        rule="coding",
        project="/home/x/shop",
        agent="main",
    ),
    entry(
        ts=NOON + HOUR,
        upstream_model="glm-4.7",
        input_tokens=50,
        cost=0.5,
        latency_ms=300,
        first_byte_ms=30,
        session="s1",
        rule="coding",
        agent="subagent",
        cache_cause="message 4",
        account="/home/x/.claude-work",
    ),
    entry(
        ts=NOON + 2 * HOUR,
        backend="anthropic",
        status="error",
        http_status=429,
        latency_ms=700,
        session="s2",
        rule="#2",
        cache_cause="message 12",
    ),
    entry(
        ts=NOON + 48 * HOUR,
        model="claude-opus-4-5",
        backend="anthropic",
        status="cancelled",
        output_tokens=7,
        latency_ms=200,
        cache_cause="expired",
    ),
]


ENGINES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)]


@pytest.fixture(scope="module", params=ENGINES)
def engine_url(request: pytest.FixtureRequest) -> Callable[[], str]:
    """Gives the URL of an empty ledger, as the rules name one."""
    if request.param == "sqlite":
        return lambda: "sqlite"
    found: Callable[[], str] = request.getfixturevalue("postgres").new_database
    return found


@pytest.fixture(scope="module")
def recorded(engine_url, tmp_path_factory) -> Iterator[LedgerSource]:
    """The ledger of `ENTRIES`."""
    folder, url = tmp_path_factory.mktemp("state"), engine_url()
    record(folder, ENTRIES, url)
    with closing(LedgerSource(folder, url)) as made:
        yield made


@pytest.fixture
def ledger(recorded: LedgerSource) -> Iterator[LedgerReader]:
    with recorded.open() as reader:
        yield reader


@pytest.fixture
def written(engine_url, tmp_path: Path) -> Iterator[Callable[[list[Entry]], LedgerReader]]:
    """Reads the ledger of these entries."""
    url = engine_url()
    with closing(LedgerSource(tmp_path, url)) as source, ExitStack() as opened:

        def write(entries: list[Entry]) -> LedgerReader:
            record(tmp_path, entries, url)
            return opened.enter_context(source.open())

        yield write


@pytest.fixture
def source(tmp_path: Path) -> Iterator[LedgerSource]:
    """A file that is not there yet."""
    with closing(LedgerSource(tmp_path)) as made:
        yield made


def test_totals_add_up_tokens_cost_and_what_was_saved(ledger):
    assert ledger.totals() == Totals(
        requests=4,
        errors=1,
        cancelled=1,
        input_tokens=150,
        output_tokens=27,
        cache_creation_input_tokens=300,
        cache_read_input_tokens=600,
        cost=0.75,
        list_cost=1.0,
        saved=0.75,  # of the first alone: the list price of the second is not known
        cache_hit=57,
        unpriced=1,
        first=int(NOON.timestamp() * 1000),
        last=int((NOON + 48 * HOUR).timestamp() * 1000),
    )


def test_sums_may_be_larger_than_any_count_of_one_request(written):
    most = 2**31 - 1
    ledger = written([entry(input_tokens=most, cache_read_input_tokens=most)] * 3)
    assert ledger.totals().input_tokens == ledger.totals().cache_read_input_tokens == 3 * most


def test_what_is_not_known_of_any_request_is_null_and_not_zero(ledger):
    totals = ledger.totals(Filter(session="s2"))
    assert (totals.cost, totals.list_cost, totals.saved, totals.cache_hit) == (None, None, None, None)


@pytest.mark.parametrize(
    ("which", "requests"),
    [
        (Filter(provider="zai"), 2),
        (Filter(model="claude-opus-4-5"), 1),
        (Filter(model="glm-4.7"), 2),
        (Filter(client="laptop"), 1),
        (Filter(session="s1"), 2),
        (Filter(project="/home/x/shop"), 1),
        (Filter(rule="#2"), 1),
        (Filter(status="cancelled"), 1),
        (Filter(status="429"), 1),
        (Filter(since=NOON + HOUR), 3),
        (Filter(until=NOON + HOUR), 1),
        (Filter(provider="anthropic", status="error"), 1),
        (Filter(session="' OR 1=1 --"), 0),
    ],
)
def test_each_part_of_a_filter_narrows(ledger, which, requests):
    assert ledger.totals(which).requests == ledger.count(which) == len(ledger.requests(which)) == requests


@pytest.mark.parametrize(
    ("by", "groups"),
    [
        ("model", [("claude-sonnet-4-5", 3), ("claude-opus-4-5", 1)]),
        ("provider", [("anthropic", 2), ("zai", 2)]),
        ("rule", [("coding", 2), ("", 1), ("#2", 1)]),
        ("session", [("s1", 2), ("s2", 1), (None, 1)]),
        ("client", [(None, 3), ("laptop", 1)]),
        ("project", [(None, 3), ("/home/x/shop", 1)]),
        ("agent", [(None, 2), ("main", 1), ("subagent", 1)]),
        ("cache", [("message", 2), ("expired", 1), (None, 1)]),
    ],
)
def test_groups_come_with_the_most_requests_first(ledger, by, groups):
    found = ledger.grouped(Filter(), by)
    assert [(key, totals.requests) for key, totals in found.items()] == groups
    assert found.keys() == ledger.grouped_latency(Filter(), by).keys()


def test_groups_can_be_limited_to_the_newest(ledger):
    assert list(ledger.grouped(Filter(), "session", limit=2, newest=True)) == [None, "s2"]


def test_days_come_in_their_order(ledger):
    days = [(NOON + after).astimezone().date().isoformat() for after in (0 * HOUR, 48 * HOUR)]
    assert [(day, found.requests) for day, found in ledger.grouped(Filter(), "day").items()] == [
        (days[0], 3),
        (days[1], 1),
    ]
    assert {day: found.p95_ms for day, found in ledger.grouped_latency(Filter(), "day").items()} == {
        days[0]: 700,
        days[1]: 200,
    }


def test_a_series_has_a_sum_for_each_part_of_time_also_for_empty_ones(ledger):
    edges = [NOON + n * HOUR for n in (-1, 0, 1, 2, 3)]
    assert [part.requests for part in ledger.series(Filter(), edges)] == [0, 1, 1, 1]
    assert [part.requests for part in ledger.series(Filter(since=NOON + HOUR), edges)] == [0, 0, 1, 1]
    assert [
        {key: part.requests for key, part in parts.items()}
        for parts in ledger.grouped_series(Filter(), edges, "provider")
    ] == [{}, {"zai": 1}, {"zai": 1}, {"anthropic": 1}]


@pytest.mark.slow
def test_each_request_is_in_one_part_of_a_year_of_days(written):
    first = datetime(2026, 1, 1, 5, tzinfo=UTC)
    ledger = written([entry(ts=first + timedelta(days=n)) for n in range(365)])
    edges = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=n) for n in range(366)]
    assert [part.requests for part in ledger.series(Filter(), edges)] == [1] * 365
    assert ledger.series(Filter(), edges[:1]) == []


@pytest.mark.parametrize(
    ("times", "median", "p95"),
    [([5], 5, 5), ([1, 2], 2, 2), ([1, 2, 9], 2, 9), ([1, 2, 5, 9], 4, 9), (list(range(1, 101)), 50, 95)],
)
def test_latency_is_reported_by_nearest_rank(written, times, median, p95):
    ledger = written([entry(latency_ms=ms) for ms in reversed(times)])
    assert ledger.latency() == Latency(median_ms=median, p95_ms=p95)


def test_latency_is_reported_by_provider(ledger):
    assert ledger.grouped_latency(Filter(), "provider") == {
        "zai": Latency(median_ms=200, p95_ms=300, first_byte_median_ms=20, first_byte_p95_ms=30),
        "anthropic": Latency(median_ms=450, p95_ms=700),
    }


def test_rows_come_in_pages_newest_first(ledger):
    assert [row["rule"] for row in ledger.requests(limit=2)] == ["", "#2"]
    assert [row["rule"] for row in ledger.requests(limit=2, offset=2)] == ["coding", "coding"]
    assert [row["latency_ms"] for row in ledger.requests(Filter(session="s1"), oldest=True)] == [100, 300]


def test_attempts_come_by_request(written):
    tried = [
        AttemptRow(provider=provider, started=NOON, latency_ms=3, outcome=outcome)
        for provider, outcome in (("zai", "429"), ("b", "200"))
    ]
    ledger = written([entry(attempt_rows=tuple(tried))])
    (row,) = ledger.requests()
    (attempts,) = ledger.attempts([row["id"]]).values()
    assert [(one["number"], one["provider"], one["outcome"]) for one in attempts] == [
        (1, "zai", "429"),
        (2, "b", "200"),
    ]


def test_a_session_is_summed_up_by_its_last_request_of_the_conversation_itself(ledger):
    assert ledger.session_summary("s1") == {
        "session": "s1",
        "requests": 2,
        "provider": "zai",
        "model": "glm-4.7",
        "rule": "coding",
        "account": None,
        "input_tokens": 150,
        "output_tokens": 20,
        "cache_creation_input_tokens": 300,
        "cache_read_input_tokens": 600,
        "cost": 0.75,
        "list_cost": 1.0,
        "saved": 0.75,
        "cache_hit": 57,
    }
    assert ledger.session_summary("unknown") is None


def test_a_ledger_that_is_not_there_yet_holds_nothing(tmp_path, source):
    with source.open() as ledger:
        assert (ledger.totals(), ledger.grouped(Filter(), "day"), ledger.requests()) == (Totals(), {}, [])
    (tmp_path / FILE).touch()
    with source.open() as ledger:
        assert ledger.totals() == Totals()


@pytest.mark.slow
def test_a_ledger_of_an_older_version_is_read_with_what_it_has(tmp_path, source):
    record(tmp_path, ENTRIES)
    with closing(sqlite3.connect(tmp_path / FILE)) as older:
        for column in ("class", "cache_cause", "list_cost"):
            older.execute(f"ALTER TABLE requests DROP COLUMN {column}")
    with source.open() as ledger:
        assert (ledger.totals().cost, ledger.totals().saved) == (0.75, None)
        assert list(ledger.grouped(Filter(), "cache")) == [None]
        assert ledger.session_summary("s1") is not None
        assert ledger.requests()[0]["cache_cause"] is None


def test_one_reading_sees_one_moment_while_a_router_writes(written):
    first = written(ENTRIES)
    before = first.totals()
    assert written(ENTRIES).totals().requests == 8
    assert first.totals() == before


def test_a_ledger_that_was_begun_anew_is_read_next(tmp_path, source):
    record(tmp_path, ENTRIES)
    with source.open() as ledger:
        assert ledger.count() == 4
    (tmp_path / FILE).rename(tmp_path / f"{FILE}.broken")
    for suffix in ("-wal", "-shm"):
        (tmp_path / f"{FILE}{suffix}").unlink(missing_ok=True)
    record(tmp_path, ENTRIES[:1])
    with source.open() as ledger:
        assert ledger.count() == 1


def test_a_damaged_ledger_is_an_error_that_gives_the_reason(tmp_path, source):
    (tmp_path / FILE).write_bytes(b"no database" * 1000)
    with pytest.raises(DatabaseError, match=r"^file is not a database$"), source.open():
        pass


def test_nothing_can_be_written_to_the_ledger_that_is_read(ledger):
    with pytest.raises(Exception, match=r"read-?only"):
        ledger._connection.exec_driver_sql("DELETE FROM requests")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("90m", NOON - timedelta(minutes=90)),
        ("7d", NOON - timedelta(days=7)),
        ("2026-11-01T10:00Z", datetime(2026, 11, 1, 10, tzinfo=UTC)),
        ("2026-11-01T10:00+02:00", datetime(2026, 11, 1, 8, tzinfo=UTC)),
    ],
)
def test_a_moment_is_a_time_back_from_now_or_a_date(written, read):
    assert parse_moment(written, NOON) == read
    assert parse_moment("2026-11-01", NOON) == datetime(2026, 11, 1).astimezone()


@pytest.mark.parametrize("written", ["yesterday", "7", "-7d", "", "999999999d", "2026-13-01", "2026-"])
def test_what_is_no_moment_is_refused(written):
    with pytest.raises(ValueError, match="is neither a duration"):
        parse_moment(written, NOON)


def test_midnights_enclose_what_is_asked_for():
    zone = timezone(timedelta(hours=2))
    first, last = datetime(2026, 3, 1, 5, tzinfo=zone), datetime(2026, 3, 3, tzinfo=zone)
    assert [str(edge) for edge in midnights(first, last, zone)] == [
        f"2026-03-0{day} 00:00:00+02:00" for day in (1, 2, 3, 4)
    ]


def test_sessions_are_sorted_by_their_last_request_newest_first(ledger):
    newest, oldest = ledger.sessions(limit=10)
    assert (newest["session"], newest["errors"], newest["models"]) == ("s2", 1, [("claude-sonnet-4-5", None)])
    assert (oldest["session"], oldest["requests"], oldest["cost"]) == ("s1", 2, 0.75)
    assert (oldest["subagents"], oldest["misses"]) == (1, 1)
    assert (oldest["project"], oldest["client"]) == ("/home/x/shop", "laptop")
    assert [one["session"] for one in ledger.sessions(limit=1, offset=1)] == ["s1"]
    assert [one["requests"] for one in ledger.sessions(Filter(client="laptop"), limit=10)] == [1]
    assert ledger.sessions(Filter(client="nobody"), limit=10) == []


def test_what_the_latest_requests_have_can_be_chosen_from(ledger):
    assert ledger.choices(10) == {
        "provider": ["anthropic", "zai"],
        "model": ["claude-opus-4-5", "claude-sonnet-4-5"],
        "client": ["laptop"],
        "project": ["/home/x/shop"],
        "rule": ["#2", "coding"],
    }
    assert len(ledger.choices(1)["provider"]) == 1


def test_rows_can_be_had_a_few_at_a_time(ledger):
    columns = list(REQUESTS.c.keys())
    rows = [dict(zip(columns, row, strict=True)) for row in ledger.each_request(Filter(), limit=3)]
    assert [row["status"] for row in rows] == ["cancelled", "error", "success"]
    (oldest,) = ledger.each_request(Filter(), limit=2, offset=3)
    assert dict(zip(columns, oldest, strict=True))["cost"] == 0.25


def test_the_agents_of_requests_are_known_while_digests_are_kept(written):
    reader = written([entry(session="s", agent_id="a1", blocks=b"x" * 16), entry(session="s")])
    first, second = (row["id"] for row in reader.requests(oldest=True))
    assert reader.agents([first, second]) == {first: "a1"}
