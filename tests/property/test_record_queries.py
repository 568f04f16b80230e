"""Sums over the ledger add up, however it is cut."""

import random
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signalbox.record.entry import Entry
from signalbox.record.queries import By, Filter, LedgerSource, Totals
from tests.support.ledger import record

START = datetime(2026, 10, 20, tzinfo=UTC)
"""A few days before clocks change in Europe."""
HOURS = 24 * 14
TOKENS = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


def entries() -> list[Entry]:
    pick = random.Random(7)
    return [
        Entry(
            ts=START + timedelta(hours=HOURS * pick.random()),
            model=pick.choice(["sonnet", "opus"]),
            backend=pick.choice(["zai", "anthropic", ""]),
            upstream_model=pick.choice(["glm", "opus"]),
            status=pick.choice(["success", "success", "error", "cancelled"]),
            rule=pick.choice(["coding", "#2"]),
            session=pick.choice(["s1", "s2", None]),
            client=pick.choice(["ann", None]),
            project=pick.choice(["/x", None]),
            agent=pick.choice(["main", "subagent", None]),
            cache_cause=pick.choice([None, "tools", "message 1", "message 22"]),
            cost=pick.choice([None, 0.25, 0.5]),
            list_cost=pick.choice([None, 1.0]),
            **{name: pick.randrange(5) for name in TOKENS},
        )
        for _ in range(300)
    ]


ENTRIES = entries()

moments = st.integers(-3, HOURS + 3).map(lambda hours: START + timedelta(hours=hours, minutes=7))
filters = st.builds(
    Filter,
    provider=st.sampled_from([None, None, "zai"]),
    model=st.sampled_from([None, "opus"]),
    session=st.sampled_from([None, None, "s1"]),
    status=st.sampled_from([None, "success"]),
    since=st.none() | moments,
    until=st.none() | moments,
)
edges = st.lists(moments, max_size=40, unique=True).map(sorted)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Iterator[LedgerSource]:
    folder = tmp_path_factory.mktemp("state")
    record(folder, ENTRIES)
    with closing(LedgerSource(folder)) as made:
        yield made


def added(parts: list[Totals]) -> dict[str, float]:
    """What can be added up of them."""
    names = ("requests", "errors", "cancelled", "unpriced", "cost", "list_cost", "saved", *TOKENS)
    return {name: sum(getattr(part, name) or 0 for part in parts) for name in names}


@settings(max_examples=settings.default.max_examples // 2)
@given(which=filters, by=st.sampled_from(get_args(By.__value__)))
def test_groups_add_up_to_the_totals(source, which, by):
    with source.open() as ledger:
        assert added(list(ledger.grouped(which, by).values())) == added([ledger.totals(which)])


@settings(max_examples=settings.default.max_examples // 2)
@given(which=filters, cuts=edges)
def test_a_request_is_in_the_part_of_time_that_it_came_in_and_in_no_other(source, which, cuts):
    everything = Filter(since=which.since, until=which.until)
    with source.open() as ledger:
        parts = ledger.series(everything, cuts)
    expected = Counter(
        bisect_right(cuts, entry.ts.replace(microsecond=entry.ts.microsecond // 1000 * 1000)) - 1
        for entry in ENTRIES
        if (which.since is None or entry.ts >= which.since)
        and (which.until is None or entry.ts < which.until)
    )
    assert [part.requests for part in parts] == [expected[number] for number in range(len(cuts) - 1)]


@settings(max_examples=settings.default.max_examples // 2)
@given(which=filters, cuts=edges, by=st.sampled_from(["provider", "rule", "cache"]))
def test_groups_of_each_part_of_time_add_up_to_that_part(source, which, cuts, by):
    with source.open() as ledger:
        whole, parts = ledger.series(which, cuts), ledger.grouped_series(which, cuts, by)
    assert [added(list(part.values())) for part in parts] == [added([part]) for part in whole]
