"""The ledger: what it holds, what it bears, what it forgets, and what it adds up."""

import re
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signalbox.record.database import FILE, LONGEST, Database, milliseconds
from signalbox.record.entry import AttemptRow, Entry
from signalbox.record.ledger import BATCH, DAY, Ledger, Timing, UsageCounter
from tests.support.router_process import wait_until

NOON = datetime(2026, 11, 19, 12, tzinfo=UTC)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
ATTEMPT = AttemptRow(
    provider="zai",
    model="glm-4.7",
    key=1,
    started=NOON,
    latency_ms=312,
    first_byte_ms=300,
    outcome="200",
    http_status=200,
    kind="success",
    input_tokens=1,
    output_tokens=20,
    cache_creation_input_tokens=300,
    cache_read_input_tokens=4000,
)
ENTRY = Entry(
    ts=NOON, model="sonnet", backend="zai", status="success", attempts="zai:200", attempt_rows=(ATTEMPT,)
)


def entry(*rows: AttemptRow, **fields: Any) -> Entry:
    return msgspec.structs.replace(ENTRY, attempt_rows=rows or ENTRY.attempt_rows, **fields)


def attempt(**fields: Any) -> AttemptRow:
    return msgspec.structs.replace(ATTEMPT, **fields)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Ledger]]:
    """Opens a ledger in the same folder; all are closed with the test."""
    with ExitStack() as started:
        yield lambda **settings: started.enter_context(closing(Ledger(tmp_path, **settings)))


QUICK = Timing(lock_timeout=0.02, linger=0.02, poll=0.02, retry=0.02)


def rows(folder: Path, query: str = "SELECT model FROM requests ORDER BY id") -> list[Any]:
    with closing(sqlite3.connect(f"file:{folder / FILE}?mode=ro", uri=True)) as file:
        found = file.execute(query).fetchall()
    return [row[0] if len(row) == 1 else row for row in found]


def is_written(folder: Path, *models: str) -> bool:
    """Whether the file is there, and holds these and no others."""
    try:
        return rows(folder) == list(models)
    except sqlite3.OperationalError:
        return False


# what is written


def test_each_attempt_is_a_row_of_its_request_numbered_from_one(start, tmp_path):
    one = start()
    one.enter(entry(attempt(provider="kimi"), ATTEMPT, model="first"))
    one.enter(entry(model="second"))
    one.close()
    query = "SELECT model, id FROM requests ORDER BY id"
    (first, first_id), (second, second_id) = rows(tmp_path, query)
    assert (first, second) == ("first", "second")
    assert rows(tmp_path, "SELECT request, number, provider FROM attempts ORDER BY request, number") == [
        (first_id, 1, "kimi"),
        (first_id, 2, "zai"),
        (second_id, 1, "zai"),
    ]


def test_a_request_without_any_attempt_is_a_row_too(start, tmp_path):
    one = start()
    one.enter(msgspec.structs.replace(ENTRY, attempt_rows=()))
    one.close()
    assert rows(tmp_path) == ["sonnet"]
    assert rows(tmp_path, "SELECT * FROM attempts") == []


def test_all_are_written_in_their_order_however_many_come_at_once(start, tmp_path):
    one, names = start(), [str(number) for number in range(2 * BATCH + 10)]
    for name in names:
        one.enter(entry(model=name))
    one.close()
    assert rows(tmp_path) == names


def test_they_are_written_while_it_runs(start, tmp_path):
    one = start()
    one.enter(ENTRY)
    wait_until(lambda: is_written(tmp_path, "sonnet"), 5, lambda: "not written")


def test_the_snippet_of_a_prompt_is_not_in_it(start, tmp_path):
    one = start()
    one.enter(entry(snippet="a private question"))
    one.close()
    assert b"private question" not in (tmp_path / FILE).read_bytes()


@pytest.mark.parametrize("text", ["two\nlines", "\udc80 of a header", "a\0b", "x" * 10_000])
def test_any_text_can_be_written_and_no_long_one_whole(start, tmp_path, caplog, text):
    one = start()
    one.enter(entry(attempt(model=text), model=text))
    one.close()
    kept = text[:LONGEST].replace("\udc80", "?")
    assert rows(tmp_path) == [kept]
    assert rows(tmp_path, "SELECT model FROM attempts") == [kept]
    assert not caplog.messages


def test_what_is_entered_after_the_end_is_written_too(start, tmp_path):
    one = start()
    one.enter(entry(model="in time"))
    one.close()
    one.enter(entry(model="late"))
    late = [thread for thread in threading.enumerate() if thread.name == "signalbox-ledger"]
    assert not any(thread.daemon for thread in late)
    one.close()
    assert rows(tmp_path) == ["in time", "late"]


def test_it_goes_on_where_its_router_does(start, tmp_path):
    one = start()
    one.close()
    one.follow(DAY * 9999)
    one.enter(ENTRY)
    one.close()
    assert rows(tmp_path) == ["sonnet"]


# what it bears


def test_what_cannot_be_written_now_is_written_later_and_told_once(start, tmp_path, caplog):
    caplog.set_level("INFO")
    one = start(timing=QUICK)
    one.enter(entry(model="before"))
    wait_until(lambda: is_written(tmp_path, "before"), 5, lambda: "not written")
    with closing(sqlite3.connect(tmp_path / FILE)) as other:
        other.execute("BEGIN IMMEDIATE")
        for name in ("a", "b", "c"):
            one.enter(entry(model=name))
        wait_until(lambda: caplog.messages, 5, lambda: "no line")
        other.rollback()
    wait_until(lambda: len(caplog.messages) == 2, 5, lambda: str(caplog.messages))
    assert rows(tmp_path) == ["before", "a", "b", "c"]
    told, well = caplog.messages
    assert "database is locked" in told
    assert "INSERT" not in told
    assert "recorded again, 0 were lost" in well


def test_a_lost_or_damaged_file_is_used_again_once_it_is_fixed(start, tmp_path, caplog):
    (tmp_path / FILE).write_bytes(b"no database" * 1000)
    one = start(timing=QUICK)
    one.enter(entry(model="a"))
    wait_until(lambda: caplog.messages, 5, lambda: "no line")
    (tmp_path / FILE).unlink()
    one.close()
    assert rows(tmp_path) == ["a"]


def test_lost_tables_are_made_anew_and_no_row_is_told(start, tmp_path, caplog):
    one = start(timing=QUICK)
    one.enter(entry(model="before"))
    wait_until(lambda: is_written(tmp_path, "before"), 5, lambda: "not written")
    with closing(sqlite3.connect(tmp_path / FILE)) as other:
        other.executescript("DROP TABLE attempts; DROP TABLE requests;")
    one.enter(entry(model="of a customer"))
    one.close()
    assert rows(tmp_path) == ["of a customer"]
    assert re.search("no such table: (requests|attempts)", caplog.messages[0])
    assert "customer" not in caplog.text


OF_NOVEMBER_2026 = """
CREATE TABLE requests (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, ts INTEGER NOT NULL, model VARCHAR NOT NULL,
    backend VARCHAR NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
    cache_creation_input_tokens INTEGER NOT NULL, cache_read_input_tokens INTEGER NOT NULL,
    status VARCHAR NOT NULL, upstream_model VARCHAR NOT NULL, rule VARCHAR NOT NULL, reason VARCHAR NOT NULL,
    attempts VARCHAR NOT NULL, latency_ms INTEGER NOT NULL, first_byte_ms INTEGER, cost FLOAT,
    session VARCHAR, client VARCHAR, tier VARCHAR, agent VARCHAR, stream BOOLEAN, http_status INTEGER,
    error_type VARCHAR
);
CREATE INDEX requests_ts ON requests (ts);
CREATE TABLE attempts (
    request INTEGER NOT NULL, number INTEGER NOT NULL, provider VARCHAR NOT NULL, model VARCHAR NOT NULL,
    "key" INTEGER, started INTEGER NOT NULL, latency_ms INTEGER NOT NULL, first_byte_ms INTEGER,
    outcome VARCHAR NOT NULL, http_status INTEGER, kind VARCHAR NOT NULL, detail VARCHAR NOT NULL,
    input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
    cache_creation_input_tokens INTEGER NOT NULL, cache_read_input_tokens INTEGER NOT NULL,
    PRIMARY KEY (request, number), FOREIGN KEY(request) REFERENCES requests (id)
) WITHOUT ROWID;
CREATE TABLE spooled
    (name VARCHAR NOT NULL, number INTEGER NOT NULL, ts INTEGER NOT NULL, PRIMARY KEY (name));
INSERT INTO requests (ts, model, backend, input_tokens, output_tokens, cache_creation_input_tokens,
    cache_read_input_tokens, status, upstream_model, rule, reason, attempts, latency_ms)
VALUES (1795000000000, 'before', 'zai', 1, 2, 3, 4, 'success', 'glm-4.7', '#1', 'rule:#1', 'zai:200', 5);
"""
"""The tables before they had a version. `request_id`, `list_cost` and the cost of an attempt came last."""


def shape(folder: Path) -> dict[str, set[str]]:
    """The columns of each table, and the names of all indexes."""
    with closing(sqlite3.connect(folder / FILE)) as file:
        names = [name for (name,) in file.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        indexes = file.execute("SELECT name FROM sqlite_master WHERE type = 'index'").fetchall()
        columns = {name: {row[1] for row in file.execute(f"PRAGMA table_info({name})")} for name in names}
    return columns | {"": {name for (name,) in indexes}}


def test_a_file_of_before_there_were_migrations_is_brought_up_to_date(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    for folder in (old, new):
        folder.mkdir()
    with closing(sqlite3.connect(old / FILE)) as file:
        file.executescript(OF_NOVEMBER_2026)
    priced = msgspec.structs.replace(ATTEMPT, cost=0.25)
    for folder in (old, new):
        with closing(Ledger(folder)) as one:
            one.enter(entry(priced, model="after", list_cost=0.5, request_class="main", project="/home/me"))
    query = "SELECT model, list_cost, class, project FROM requests"
    assert rows(old, query) == [("before", None, None, None), ("after", 0.5, "main", "/home/me")]
    assert rows(old, "SELECT cost FROM attempts") == [0.25]
    assert shape(old) == shape(new)
    assert rows(old, "SELECT number FROM schema_version") == rows(new, "SELECT number FROM schema_version")


def test_many_routers_that_start_at_once_bring_it_up_to_date_together(start, tmp_path, caplog):
    with closing(sqlite3.connect(tmp_path / FILE)) as file:
        file.executescript(OF_NOVEMBER_2026)
    many = [start() for _ in range(8)]
    for number, one in enumerate(many):
        one.enter(entry(model=str(number)))
    for one in many:
        one.close()
    assert sorted(rows(tmp_path)) == [*map(str, range(8)), "before"]
    assert not caplog.messages


def test_more_than_can_wait_is_lost_and_told(start, tmp_path, caplog):
    (tmp_path / FILE).mkdir()
    one = start(most=2, timing=QUICK._replace(close=0.0))
    for _ in range(5):
        one.enter(ENTRY)
    one.close()
    assert "2 requests wait to be recorded, 3 are lost" in caplog.messages[0]
    assert caplog.messages[-1].endswith("2 requests are not recorded")


def test_one_that_cannot_be_written_at_all_takes_no_other_with_it(start, tmp_path, caplog):
    one = start()
    one.enter(entry(latency_ms=2**70))
    wait_until(lambda: caplog.messages, 5, lambda: "no line")
    one.enter(entry(model="next"))
    one.close()
    assert rows(tmp_path) == ["next"]
    assert len(caplog.messages) == 1


def test_several_routers_may_write_to_one_file(start, tmp_path):
    many = [start() for _ in range(4)]
    for number in range(50):
        for one in many:
            one.enter(entry(model=str(number)))
    for one in many:
        one.close()
    assert sorted(rows(tmp_path)) == sorted(str(number) for number in range(50) for _ in many)
    assert rows(tmp_path, "SELECT count(*) FROM attempts") == [200]


# what it forgets


class Clock:
    now = NOON.timestamp()

    def __call__(self) -> float:
        return self.now


def test_rows_older_than_they_are_kept_are_forgotten_with_their_attempts(start, tmp_path):
    one = start()
    for hours in (*range(49, 56), 47):
        one.enter(entry(ts=NOON - timedelta(hours=hours), model=str(hours)))
    one.close()
    again = start(clock=Clock(), at_once=2)
    again.follow(2 * DAY)
    wait_until(lambda: rows(tmp_path) == ["47"], 5, lambda: str(rows(tmp_path)))
    assert rows(tmp_path, "SELECT count(*) FROM attempts") == [1]


def test_they_are_forgotten_once_a_day(start, tmp_path):
    clock = Clock()
    one = start(clock=clock)
    one.follow(2 * DAY)
    one.enter(entry(model="old"))
    one.close()
    assert rows(tmp_path) == ["old"]
    clock.now += 3 * DAY
    one.enter(entry(model="new", ts=NOON + timedelta(days=3)))
    one.close()
    assert rows(tmp_path) == ["new"]


def test_what_a_budget_counts_is_kept_for_as_long_as_it_counts(start, tmp_path):
    one = start(clock=Clock())
    one.enter(entry(ts=NOON - timedelta(days=20)))
    one.enter(entry(ts=NOON - timedelta(days=40), model="older"))
    one.used("zai", NOON - timedelta(days=30))
    one.follow(DAY)
    one.close()
    assert rows(tmp_path) == ["sonnet"]


# what it adds up


def test_all_four_counts_of_every_attempt_add_up_at_once(start):
    one = start()
    assert one.used("zai", LONG_AGO) == 0
    one.enter(entry(ATTEMPT, attempt(outcome="cancelled", cache_read_input_tokens=0)))
    one.enter(entry(attempt(provider="kimi")))
    assert one.used("zai", LONG_AGO) == 4321 + 321


def test_what_began_before_the_moment_does_not_count(start):
    one = start()
    one.used("zai", NOON)
    one.enter(entry(attempt(started=NOON - timedelta(seconds=1)), attempt(started=NOON, input_tokens=2)))
    assert one.used("zai", NOON) == 4322
    one.close()
    again = start()
    again.used("zai", NOON)
    again.ready()
    assert again.used("zai", NOON) == 4322


def test_of_a_moment_that_is_asked_for_first_the_file_is_known_a_little_later(start):
    one = start()
    one.enter(ENTRY)
    one.close()
    again = start()
    assert again.used("zai", LONG_AGO) == 0
    again.ready()
    assert again.used("zai", LONG_AGO) == 4321


def test_a_new_period_begins_with_nothing_and_the_one_before_can_be_asked_for_again(start):
    one = start()
    one.used("zai", LONG_AGO)
    one.enter(ENTRY)
    assert one.used("zai", NOON + timedelta(days=1)) == 0
    one.used("zai", LONG_AGO)
    wait_until(lambda: one.used("zai", LONG_AGO) == 4321, 5, lambda: "not known")


def test_what_another_router_writes_is_seen(start):
    here, there = start(timing=QUICK), start(timing=QUICK)
    here.used("zai", LONG_AGO)
    here.enter(ENTRY)
    here.ready()
    there.enter(ENTRY)
    wait_until(lambda: here.used("zai", LONG_AGO) == 2 * 4321, 5, lambda: str(here.used("zai", LONG_AGO)))


@settings(max_examples=15)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("enter"), st.sampled_from(["zai", "kimi"]), st.integers(0, 10**12)),
            st.tuples(st.just("used"), st.sampled_from(["zai", "kimi"]), st.just(0)),
            st.tuples(st.just("restart"), st.just(""), st.just(0)),
        ),
        max_size=12,
    )
)
def test_nothing_is_counted_twice_or_forgotten_whenever_it_is_read(steps):
    expected = {"zai": 0, "kimi": 0}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as opened:
        one = opened.enter_context(closing(Ledger(Path(folder))))
        for step, provider, tokens in steps:
            if step == "enter":
                bare = AttemptRow(
                    provider=provider, started=NOON, latency_ms=0, outcome="200", input_tokens=tokens
                )
                one.enter(entry(bare))
                expected[provider] += tokens
            elif step == "used":
                one.used(provider, LONG_AGO)
                one.ready()
                assert one.used(provider, LONG_AGO) == expected[provider]
            else:
                one.close()
                one = opened.enter_context(closing(Ledger(Path(folder))))
        one.close()
        with closing(Database(Path(folder) / FILE)) as file:
            assert file.used(dict.fromkeys(expected, milliseconds(LONG_AGO))) == expected


MOMENT = milliseconds(NOON)


def used(tokens: int, *providers: str) -> Entry:
    """One attempt at each provider, each of so many tokens."""
    rows = tuple(
        AttemptRow(provider=name, started=NOON, latency_ms=0, outcome="200", output_tokens=tokens)
        for name in providers
    )
    return Entry(ts=NOON, model="", backend="", status="success", attempt_rows=rows)


def test_nothing_is_added_up_for_who_is_not_asked_for():
    counter = UsageCounter()
    counter.add(used(1, "zai"))
    assert counter.used("zai") == 0


def test_what_waits_to_be_written_counts_when_it_is_asked_for_first():
    counter = UsageCounter()
    counter.ask("zai", MOMENT, [used(1, "zai"), used(10, "kimi"), used(100, "zai", "zai")])
    assert counter.used("zai") == 201


def test_what_is_read_takes_the_place_of_all_that_is_written():
    counter = UsageCounter()
    counter.ask("zai", MOMENT, [])
    counter.ask("kimi", MOMENT, [])
    waiting = [used(1, "zai"), used(10, "zai", "kimi")]
    for one in waiting:
        counter.add(one)
    counter.refresh({"zai": 1001, "kimi": 0}, waiting[1:])
    assert (counter.used("zai"), counter.used("kimi")) == (1011, 10)


def test_asking_from_another_moment_on_leaves_the_other_providers_as_they_are():
    counter = UsageCounter()
    counter.ask("zai", MOMENT, [])
    counter.ask("kimi", MOMENT, [])
    counter.add(used(5, "zai", "kimi"))
    counter.ask("zai", MOMENT + 1, [used(5, "zai", "kimi")])
    assert (counter.used("zai"), counter.used("kimi")) == (0, 5)
