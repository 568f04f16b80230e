"""The ledger: what it holds, what it bears, what it forgets, and what it adds up."""

import errno
import os
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

from signalbox.database import ledger_url
from signalbox.record import ledger
from signalbox.record.database import LONGEST, LedgerDatabase
from signalbox.record.entry import AttemptRow, Entry, milliseconds
from signalbox.record.ledger import BATCH, DAY, Ledger, Timing
from tests.support.ledger import LedgerStore
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


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> LedgerStore:
    """An empty state folder, and one of the engines."""
    if request.param == "sqlite":
        return LedgerStore(tmp_path)
    return LedgerStore(tmp_path, request.getfixturevalue("postgres").new_database())


@pytest.fixture
def start(store: LedgerStore) -> Iterator[Callable[..., Ledger]]:
    """Opens a ledger there, as one more router; all are closed with the test."""
    with ExitStack() as started:
        yield lambda **settings: started.enter_context(closing(store.ledger(**settings)))


QUICK = Timing(linger=0.02, poll=0.02, retry=0.02)


# what is written


def test_each_attempt_is_a_row_of_its_request_numbered_from_one(start, store):
    one = start()
    one.enter(entry(attempt(provider="kimi"), ATTEMPT, model="first"))
    one.enter(entry(model="second"))
    one.close()
    query = "SELECT model, id FROM requests ORDER BY id"
    (first, first_id), (second, second_id) = store.rows(query)
    assert (first, second) == ("first", "second")
    assert store.rows("SELECT request, number, provider FROM attempts ORDER BY request, number") == [
        (first_id, 1, "kimi"),
        (first_id, 2, "zai"),
        (second_id, 1, "zai"),
    ]


def test_a_request_without_any_attempt_is_a_row_too(start, store):
    one = start()
    one.enter(msgspec.structs.replace(ENTRY, attempt_rows=()))
    one.close()
    assert store.rows() == ["sonnet"]
    assert store.rows("SELECT * FROM attempts") == []


def test_all_are_written_in_their_order_however_many_come_at_once(start, store):
    one, names = start(), [str(number) for number in range(2 * BATCH + 10)]
    for name in names:
        one.enter(entry(model=name))
    one.close()
    assert store.rows() == names


@pytest.mark.slow
def test_they_are_written_while_it_runs(start, store):
    one = start()
    one.enter(ENTRY)
    wait_until(lambda: store.holds("sonnet"), 5, lambda: "not written")


def test_one_that_cannot_be_opened_is_tried_again(start, store, monkeypatch, caplog):
    opened, tried = ledger._database, []

    def fails_once(*arguments: Any) -> LedgerDatabase:
        tried.append(arguments)
        if len(tried) == 1:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return opened(*arguments)

    monkeypatch.setattr(ledger, "_database", fails_once)
    one = start(timing=Timing(linger=0.0, retry=0.05))
    one.enter(ENTRY)
    wait_until(lambda: store.holds("sonnet"), 5, lambda: "not written")
    assert "the ledger cannot be opened: [Errno 24] Too many open files" in caplog.text


def test_the_snippet_of_a_prompt_is_not_in_it(start, store):
    one = start()
    one.enter(entry(snippet="a private question"))
    one.close()
    assert "private question" not in str(store.rows("SELECT * FROM requests"))


@pytest.mark.parametrize("text", ["two\nlines", "\udc80 of a header", "a\0b", "x" * 10_000])
def test_any_text_can_be_written_and_no_long_one_whole(start, store, caplog, text):
    one = start()
    one.enter(entry(attempt(model=text), model=text))
    one.close()
    kept = text[:LONGEST].replace("\udc80", "?").replace("\0", "?")
    assert store.rows() == [kept]
    assert store.rows("SELECT model FROM attempts") == [kept]
    assert not caplog.messages


def test_what_is_entered_after_the_end_is_written_too(start, store):
    one = start()
    one.enter(entry(model="in time"))
    one.close()
    one.enter(entry(model="late"))
    late = [thread for thread in threading.enumerate() if thread.name == "signalbox-ledger"]
    assert not any(thread.daemon for thread in late)
    one.close()
    assert store.rows() == ["in time", "late"]


def test_it_goes_on_where_its_router_does(start, store):
    one = start()
    one.close()
    one.follow(store.settings(keep=DAY * 9999))
    one.enter(ENTRY)
    one.close()
    assert store.rows() == ["sonnet"]


# what it bears


def test_one_that_cannot_be_written_at_all_takes_no_other_with_it(start, store, caplog):
    one = start()
    for fields in ({"model": "first"}, {"latency_ms": 2**70}, {"model": "next"}):
        one.enter(entry(**fields))
    one.close()
    assert store.rows() == ["first", "next"]
    assert len(caplog.messages) == 1


def test_what_a_database_has_already_is_not_written_again(store):
    """As after a connection that was lost while a transaction was ending."""
    numbered = [(number, entry(model=str(number))) for number in range(1, 6)]
    with closing(LedgerDatabase(ledger_url(store.folder, store.settings()))) as database:
        assert len(database.write("spool", numbered[:3], 3)) == 3
        assert [one.model for one in database.write("spool", numbered, 5)] == ["4", "5"]
        assert database.write("spool", numbered, 5) == []
    assert store.rows() == ["1", "2", "3", "4", "5"]


def test_it_moves_to_another_database_when_the_rules_say_so(start, store, tmp_path):
    one = start(timing=QUICK)
    one.enter(entry(model="here"))
    wait_until(lambda: store.holds("here"), 5, lambda: "not written")
    other = LedgerStore(tmp_path, f"sqlite:///{tmp_path / 'other.sqlite'}")
    one.follow(other.settings())
    one.enter(entry(model="there"))
    wait_until(lambda: other.holds("there"), 5, lambda: "not written")
    one.follow(store.settings())
    one.enter(entry(model="back"))
    one.close()
    assert (store.rows(), other.rows()) == (["here", "back"], ["there"])


def test_several_routers_may_write_to_one_ledger(start, store):
    many = [start() for _ in range(4)]
    for number in range(50):
        for one in many:
            one.enter(entry(model=str(number)))
    for one in many:
        one.close()
    assert sorted(store.rows()) == sorted(str(number) for number in range(50) for _ in many)
    assert store.rows("SELECT count(*) FROM attempts") == [200]


# what it forgets


class Clock:
    now = NOON.timestamp()

    def __call__(self) -> float:
        return self.now


@pytest.mark.slow
def test_rows_older_than_they_are_kept_are_forgotten_with_their_attempts(start, store):
    one = start()
    for hours in (*range(49, 56), 47):
        one.enter(entry(ts=NOON - timedelta(hours=hours), model=str(hours)))
    one.close()
    again = start(clock=Clock(), at_once=2)
    again.follow(store.settings(keep=2 * DAY))
    wait_until(lambda: store.rows() == ["47"], 5, lambda: str(store.rows()))
    assert store.rows("SELECT count(*) FROM attempts") == [1]


def test_they_are_forgotten_once_a_day(start, store):
    clock = Clock()
    one = start(clock=clock)
    one.follow(store.settings(keep=2 * DAY))
    one.enter(entry(model="old"))
    one.close()
    assert store.rows() == ["old"]
    clock.now += 3 * DAY
    one.enter(entry(model="new", ts=NOON + timedelta(days=3)))
    one.close()
    assert store.rows() == ["new"]


def test_what_a_budget_counts_is_kept_for_as_long_as_it_counts(start, store):
    one = start(clock=Clock())
    one.enter(entry(ts=NOON - timedelta(days=20)))
    one.enter(entry(ts=NOON - timedelta(days=40), model="older"))
    one.used("zai", NOON - timedelta(days=30))
    one.follow(store.settings(keep=DAY))
    one.close()
    assert store.rows() == ["sonnet"]


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


@pytest.mark.slow
@settings(max_examples=settings.default.max_examples // 4)
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
        store = LedgerStore(Path(folder))
        one = opened.enter_context(closing(store.ledger()))
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
                one = opened.enter_context(closing(store.ledger()))
        one.close()
        with closing(LedgerDatabase(ledger_url(Path(folder), store.settings()))) as file:
            assert file.used(dict.fromkeys(expected, milliseconds(LONG_AGO))) == expected
