"""What each request missed of its provider's cache, as the ledger finds it."""

import json
import logging
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from signalbox.database import ledger_url
from signalbox.record.database import LedgerDatabase
from signalbox.record.entry import Entry
from signalbox.record.ledger import Timing, log_misses
from signalbox.record.prefixes import PrefixReader
from tests.support.ledger import LedgerStore
from tests.support.router_process import wait_until
from tests.unit.test_record_ledger import NOON, attempt, entry

READER = PrefixReader(b"a key of the tests")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> LedgerStore:
    if request.param == "sqlite":
        return LedgerStore(tmp_path)
    return LedgerStore(tmp_path, request.getfixturevalue("postgres").new_database())


@pytest.fixture
def database(store: LedgerStore) -> Iterator[LedgerDatabase]:
    with closing(LedgerDatabase(ledger_url(store.folder, store.settings()))) as one:
        yield one


def turn(minute: float, said: str = "", *, read: int = 0, written: int = 0, **fields: Any) -> Entry:
    """`said` is one letter a message."""
    asked = {"messages": [{"role": "user", "content": letter} for letter in said or "a"]}
    prefix = READER.read(json.dumps(asked).encode())
    row = {name: fields.pop(name) for name in ("provider", "model", "key", "kind") if name in fields}
    used = {"cache_read_input_tokens": read, "cache_creation_input_tokens": written, "input_tokens": 1}
    return entry(
        attempt(**row, **used),
        **{"session": "s1", "blocks": prefix.packed, "cache_life": prefix.life, **used, **fields},
        ts=NOON + timedelta(minutes=minute),
    )


def causes(database: LedgerDatabase, *entries: Entry) -> list[str | None]:
    numbered = list(enumerate(entries, 1))
    return [one.cache_cause for one in database.write("this router", numbered, len(entries))]


def test_a_session_that_reads_what_it_left_misses_nothing(database: LedgerDatabase) -> None:
    turns = (turn(0, "a", written=900), turn(1, "ab", read=900, written=50), turn(2, "abc", read=950))
    assert causes(database, *turns) == [None, None, None]


def test_the_cause_is_in_the_row_of_the_request(database: LedgerDatabase, store: LedgerStore) -> None:
    found = causes(database, turn(0, "ab", written=900), turn(1, "xb", written=900), turn(9, "xbc"))
    assert found == [None, "message 0", "expired"]
    assert store.rows("SELECT cache_cause FROM requests ORDER BY id") == found


def test_what_a_miss_cost_is_in_the_row_of_the_request(database: LedgerDatabase, store: LedgerStore) -> None:
    """At the price that the request itself was charged, be it that of an hour in the cache."""
    before, priced = turn(0, "ab", written=50_000), turn(1, "xb", written=60_000, cache_price=5.7)
    causes(database, before, priced, turn(2, "yb", written=60_000))
    assert store.rows("SELECT missed_tokens FROM requests ORDER BY id") == [None, 50_000, 60_000]
    assert store.rows("SELECT missed_cost FROM requests ORDER BY id") == [None, 0.285, None]


def test_a_router_that_starts_compares_with_what_the_last_one_wrote(
    database: LedgerDatabase, store: LedgerStore
) -> None:
    causes(database, turn(0, "ab", written=900))
    with closing(LedgerDatabase(ledger_url(store.folder, store.settings()))) as other:
        written = other.write("another router", [(1, turn(1, "ab", model="glm-4.6"))], 1)
    assert (written[0].cache_cause, written[0].missed_tokens) == ("model", 1)


def test_each_agent_and_each_class_of_request_has_a_cache_of_its_own(database: LedgerDatabase) -> None:
    others = (
        turn(1, "x", agent_id="a1"), turn(2, "y", request_class="auxiliary"), turn(3, "z", session="s2"),
        turn(4, "w", session=None), turn(4, "ab", read=900),
    )  # fmt: skip
    assert causes(database, turn(0, "ab", written=900), *others) == [None] * 6


def test_a_request_that_failed_leaves_nothing(database: LedgerDatabase) -> None:
    failed = turn(1, "xy", status="error", kind="overload", written=7)
    assert causes(database, turn(0, "ab", written=900), failed, turn(2, "abc", read=900)) == [None] * 3


def test_a_miss_that_matters_is_reported_with_its_price(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="signalbox")
    log_misses(
        [
            turn(0, cache_cause="tools", missed_tokens=82_000, missed_cost=0.2829),
            turn(0, cache_cause="message 7", missed_tokens=12_000),
            turn(0, cache_cause="expired", missed_tokens=10_001),
            turn(0, cache_cause="tools", missed_tokens=10_000),
            turn(0),
        ]
    )
    assert caplog.messages == [
        "cache miss: 82k tokens written again, tools changed, $0.28",
        "cache miss: 12k tokens written again, message 7 changed",
        "cache miss: 10k tokens written again, the cache had expired",
    ]


def test_a_running_ledger_reports_the_misses_that_it_finds(
    store: LedgerStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="signalbox")
    with closing(store.ledger(timing=Timing(linger=0.0))) as ledger:
        ledger.enter(turn(0, "ab", written=90_000))
        number = ledger.enter(turn(1, "?", written=90_000))
        ledger.complete(number, turn(1, "xb", written=90_000))
        told = lambda: any("message 0 changed" in line for line in caplog.messages)  # noqa: E731
        wait_until(told, 10, lambda: "the line of the miss")
