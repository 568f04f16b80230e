"""Days, weeks and months of a budget, and whether it is spent."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.config.fields import Url
from signalbox.config.rules import Budget, Provider, Week
from signalbox.routing.budget import Budgets, Per, is_spent, period

# With clock changes at midnight, of half an hour, over the date line, at other hours, and none.
ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",
    "Africa/Cairo",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Pacific/Kiritimati",
]
BERLIN = Week(timezone="Europe/Berlin")

weeks = st.builds(
    Week,
    starts=st.tuples(st.integers(0, 6), st.integers(0, 23), st.integers(0, 59)),
    timezone=st.sampled_from(ZONES),
)
moments = st.datetimes(datetime(2008, 1, 1), datetime(2037, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001  the bounds are naive
pers = st.sampled_from(["day", "week", "month"])


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("per", "week", "now", "start", "end"),
    [
        ("day", BERLIN, "2026-11-21T12:00+01:00", "2026-11-21T00:00+01:00", "2026-11-22T00:00+01:00"),
        ("day", BERLIN, "2026-11-21T23:30Z", "2026-11-22T00:00+01:00", "2026-11-23T00:00+01:00"),
        ("day", BERLIN, "2026-03-29T12:00Z", "2026-03-29T00:00+01:00", "2026-03-30T00:00+02:00"),
        ("day", BERLIN, "2026-10-25T12:00Z", "2026-10-25T00:00+02:00", "2026-10-26T00:00+01:00"),
        ("month", BERLIN, "2026-12-31T22:59Z", "2026-12-01T00:00+01:00", "2027-01-01T00:00+01:00"),
        ("month", BERLIN, "2026-12-31T23:00Z", "2027-01-01T00:00+01:00", "2027-02-01T00:00+01:00"),
        ("month", BERLIN, "2026-03-31T12:00Z", "2026-03-01T00:00+01:00", "2026-04-01T00:00+02:00"),
        ("week", BERLIN, "2026-11-22T22:59Z", "2026-11-16T00:00+01:00", "2026-11-23T00:00+01:00"),
        ("week", BERLIN, "2026-11-22T23:00Z", "2026-11-23T00:00+01:00", "2026-11-30T00:00+01:00"),
        # The week begins in the hour that the clock leaves out, or in the one that comes twice.
        (
            "week",
            Week((6, 2, 30), "Europe/Berlin"),
            "2026-03-29T01:10Z",
            "2026-03-22T02:30+01:00",
            "2026-03-29T03:30+02:00",
        ),
        (
            "week",
            Week((6, 2, 30), "Europe/Berlin"),
            "2026-10-25T01:10Z",
            "2026-10-25T02:30+02:00",
            "2026-11-01T02:30+01:00",
        ),
        # There is no midnight on the day on which summer begins.
        (
            "day",
            Week(timezone="Africa/Cairo"),
            "2026-04-24T12:00Z",
            "2026-04-24T01:00+03:00",
            "2026-04-25T00:00+03:00",
        ),
        # A day that a whole country left out.
        (
            "day",
            Week(timezone="Pacific/Apia"),
            "2011-12-30T09:59Z",
            "2011-12-29T00:00-10:00",
            "2011-12-31T00:00+14:00",
        ),
    ],
)
def test_a_period_goes_by_the_clock_of_its_zone(per, week, now, start, end):
    assert period(per, week, at(now)) == (at(start), at(end))


@given(pers, weeks, moments)
def test_now_is_within_its_period(per, week, now):
    start, end = period(per, week, now)
    assert start <= now < end


@given(pers, weeks, moments)
def test_periods_follow_each_other_without_gap_and_are_the_same_from_within(per: Per, week, now):
    start, end = period(per, week, now)
    assert period(per, week, start) == (start, end)
    assert period(per, week, end - timedelta(microseconds=1)) == (start, end)
    assert period(per, week, end).start == end
    assert period(per, week, start - timedelta(microseconds=1)).end == start


@given(pers, weeks, moments)
def test_a_period_is_as_long_as_it_is_called_but_for_a_clock_change(per, week, now):
    start, end = period(per, week, now)
    shortest, longest = {"day": (1, 1), "week": (7, 7), "month": (28, 31)}[per]
    slack = timedelta(days=1)  # Samoa left out a day
    assert timedelta(days=shortest) - slack <= end - start <= timedelta(days=longest) + slack


@given(weeks, moments)
def test_a_week_begins_at_its_day_and_time_unless_the_clock_leaves_that_out(week, now):
    zone = ZoneInfo(week.timezone)
    start = period("week", week, now).start.astimezone(zone)
    is_changed = (start - timedelta(days=1)).utcoffset() != start.utcoffset()
    assert is_changed or (start.weekday(), start.hour, start.minute) == week.starts


@pytest.fixture
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the machine's zone cannot be set")
def test_the_machines_own_zone_is_used_with_its_clock_changes(in_berlin):
    days = [at("2026-03-28T12:00Z") + timedelta(days=number) for number in range(240)]
    for per in ("day", "week", "month"):
        for day in days:
            assert period(per, Week(), day) == period(per, BERLIN, day)


# spent


@pytest.mark.parametrize(
    ("budget", "used", "spent"),
    [
        (Budget(100, "day"), 99, False),
        (Budget(100, "day"), 100, True),
        (Budget(100, "day", at=90), 89, False),
        (Budget(100, "day", at=90), 90, True),
        (Budget(3, "day", at=50), 1, False),
        (Budget(3, "day", at=50), 2, True),
        (Budget(100, "day", at=120), 119, False),
        (Budget(0, "day"), 0, True),
    ],
)
def test_a_budget_is_spent_at_its_mark(budget, used, spent):
    assert is_spent(budget, used) is spent


def provider(budget: Budget | None) -> Provider:
    return Provider(name="zai", url=Url("https", "zai.invalid", 443), budget=budget)


def test_without_a_budget_nobody_is_asked_what_was_used():
    def asked(*_: object) -> int:
        raise AssertionError

    assert Budgets(asked).refusal(provider(None), BERLIN, at("2026-11-21T12:00Z")) is None


def test_what_was_used_since_the_periods_start_decides_and_the_next_one_begins_anew():
    used = {at("2026-11-21T00:00+01:00"): 1_234_567, at("2026-11-22T00:00+01:00"): 0}
    budgets = Budgets(lambda name, since: used[since] if name == "zai" else 0)
    asked = provider(Budget(1_000_000, "day"))
    assert budgets.refusal(asked, BERLIN, at("2026-11-21T22:59Z")) == (
        "budget",
        "1,234,567 of 1,000,000 tokens a day used, until 2026-11-22 00:00",
    )
    assert budgets.refusal(asked, BERLIN, at("2026-11-21T23:00Z")) is None


def test_another_week_in_the_rules_holds_at_once():
    starts = []
    budgets = Budgets(lambda _, since: starts.append(since) or 0)
    for week in (BERLIN, Week((2, 6, 0), "UTC"), BERLIN):
        budgets.refusal(provider(Budget(1, "week")), week, at("2026-11-21T12:00Z"))
    assert starts == [
        at("2026-11-16T00:00+01:00"),
        at("2026-11-18T06:00Z"),
        at("2026-11-16T00:00+01:00"),
    ]


@given(weeks, moments, st.lists(st.timedeltas(timedelta(0), timedelta(days=40)), max_size=20))
def test_remembered_periods_are_those_of_the_moment(week, now, steps):
    starts: list[datetime] = []
    budgets = Budgets(lambda _, since: starts.append(since) or 0)
    moments = [now + step for step in steps]
    for moment in moments:
        budgets.refusal(provider(Budget(1, "week")), week, moment)
    assert starts == [period("week", week, moment).start for moment in moments]
