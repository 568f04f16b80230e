"""Budgets: providers that are skipped because they have used the tokens that the user allows for a period.

No clock here: `now` is a datetime with a time zone. The ledger knows what was used.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

from signalbox.config.rules import Budget, Provider, Rules, Week

type Per = Literal["day", "week", "month"]
type Used = Callable[[str, datetime], int]
"""Gives the tokens that a provider has used since a time."""


class Period(NamedTuple):
    """From `start` until just before `end`; both are UTC."""

    start: datetime
    end: datetime


def period(per: Per, week: Week, now: datetime) -> Period:
    """The period that contains `now`. Days and months begin at midnight, weeks as `week` says, in its time
    zone.

    If a clock change skips the beginning, the period begins as long after midnight as without the change. If
    the beginning occurs twice, the first one counts.
    """
    zone = _zone(week)
    bounds = [_moment(bound, zone) for bound in _bounds(per, week, now.astimezone(zone).date())]
    return Period(
        max(bound for bound in bounds if bound <= now), min(bound for bound in bounds if bound > now)
    )


def _bounds(per: Per, week: Week, today: date) -> Iterator[datetime]:
    """The beginnings of the last period, of the one with `today` and of the next two, in local time without a
    zone."""
    if per == "month":
        first = today.replace(day=1)
        for months in (-1, 0, 1, 2):
            years, month = divmod(first.month - 1 + months, 12)
            yield datetime.combine(date(first.year + years, month + 1, 1), time())
        return
    weekday, hour, minute = week.starts if per == "week" else (today.weekday(), 0, 0)
    begun = today - timedelta(days=(today.weekday() - weekday) % 7)
    length = 7 if per == "week" else 1
    for number in (-1, 0, 1, 2):
        yield datetime.combine(begun + timedelta(days=number * length), time(hour, minute))


def _moment(wall: datetime, zone: ZoneInfo | None) -> datetime:
    return wall.replace(tzinfo=zone).astimezone(UTC)


def _zone(week: Week) -> ZoneInfo | None:
    """The time zone; None is the machine's own, as for `datetime`."""
    return None if week.timezone == "local" else ZoneInfo(week.timezone)


def is_spent(budget: Budget, used: int) -> bool:
    return used * 100 >= budget.tokens * budget.at


class Budgets:
    """The budgets of all providers. `used` must be fast: it is called for each request."""

    def __init__(self, used: Used) -> None:
        self._used = used
        self._running: dict[tuple[Per, Week], Period] = {}

    def refusal(self, provider: Provider, week: Week, now: datetime) -> tuple[str, str] | None:
        """Why this provider is skipped, as in `plan.RefusalCheck`: `budget`."""
        budget = provider.budget
        if budget is None:
            return None
        running = self._period(budget.per, week, now)
        used = self._used(provider.name, running.start)
        if not is_spent(budget, used):
            return None
        end = running.end.astimezone(_zone(week))
        return (
            "budget",
            f"{used:,} of {budget.tokens:,} tokens a {budget.per} used, until {end:%Y-%m-%d %H:%M}",
        )

    def used_part(self, provider: Provider, week: Week, now: datetime) -> float | None:
        """Of the running period's budget, 1 being all of it; None without a budget."""
        budget = provider.budget
        if budget is None:
            return None
        used = self._used(provider.name, self._period(budget.per, week, now).start)
        return used / budget.tokens if budget.tokens else 1.0

    def shown(self, rules: Rules, now: datetime) -> Iterator[tuple[str, dict[str, Any]]]:
        """Of each provider with a budget its name, and how much is used: `used` and `tokens`, `percent`, the
        mark `at` in percent, `per`, and `resets_at`, when the period ends."""
        for provider in rules.providers.values():
            if (budget := provider.budget) is not None:
                running = self._period(budget.per, rules.week, now)
                used = self._used(provider.name, running.start)
                yield (
                    provider.shown,
                    {
                        "used": used,
                        "tokens": budget.tokens,
                        "percent": round(100 * used / budget.tokens, 1) if budget.tokens else 100.0,
                        "at": budget.at,
                        "per": budget.per,
                        "resets_at": running.end.isoformat(timespec="seconds").replace("+00:00", "Z"),
                    },
                )

    def _period(self, per: Per, week: Week, now: datetime) -> Period:
        running = self._running.get((per, week))
        if running is None or not running.start <= now < running.end:
            running = self._running[per, week] = period(per, week, now)
        return running
