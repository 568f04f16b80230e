"""The figures of `/ui` and `/ui/data.json`, and the charts that are drawn of them.

`figures` gives what data.json holds: moments are ISO 8601 in UTC, money is USD. All else is made from that.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import pairwise
from pathlib import PurePath
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from signalbox.anthropic.api import TOKEN_FIELDS
from signalbox.config.rules import Week
from signalbox.record.queries import Filter, LedgerReader, Totals, added, midnights, rounded
from signalbox.routing.budget import period
from signalbox.ui import format
from signalbox.ui.charts import Axis, BarPart, Chart, Series, bar_parts, bars, lines

MINUTES = 3
"""Length of a part of the last three hours."""
RECENT = timedelta(hours=3)
DAYS = 30
WEEKS = 8
COMPARED = 4
"""Weeks that are drawn against each other."""
MODELS = 6
"""Models with a colour of their own; the rest is `other`."""
_BEGINNING, _END = datetime(1970, 1, 1, tzinfo=UTC), datetime(3000, 1, 1, tzinfo=UTC)
SUMS = ("requests", "errors", *TOKEN_FIELDS, "cost", "list_cost", "saved", "cache_hit")

PALETTE = ("c0", "c1", "c2", "c3", "c4", "c5", "c6")
KINDS = (
    ("cache read", "cache_read_input_tokens", "read"),
    ("cache write", "cache_creation_input_tokens", "write"),
    ("fresh input", "input_tokens", "fresh"),
    ("output", "output_tokens", "output"),
)
"""The four kinds of tokens: how they are called, their column and their colour."""


def zone_of(week: Week) -> tzinfo | None:
    """None is the machine's own."""
    return None if week.timezone == "local" else ZoneInfo(week.timezone)


# figures


def figures(reader: LedgerReader, which: Filter, week: Week, now: datetime) -> dict[str, Any]:
    """All that data.json holds but `now`."""
    zone = zone_of(week)
    local = now.astimezone(zone)
    hour, step = timedelta(hours=1), timedelta(minutes=MINUTES)
    recent = _edges(_floor(now, step) + step - RECENT, step, RECENT // step)
    hours = _edges(local.replace(minute=0, second=0, microsecond=0) - 23 * hour, hour, 24)
    last_day = max(filter(None, (which.since, now - timedelta(days=1))))
    by_model = reader.grouped_series(which, hours, "model")
    latency = reader.grouped_latency(msgspec.structs.replace(which, since=last_day), "provider")
    days, parts = midnights(local - timedelta(days=DAYS - 1), local), _week_parts(week, now)
    totals = _TotalsByTime(reader, which, [*days, *parts])
    return {
        "totals": _sums(added(totals.by_provider.values())),
        "providers": [
            {
                "provider": name or "",
                **_sums(sums),
                "first_byte_p50_ms": latency[name].first_byte_median_ms if name in latency else None,
                "first_byte_p95_ms": latency[name].first_byte_p95_ms if name in latency else None,
            }
            for name, sums in totals.by_provider.items()
        ],
        "recent": _parts_of(recent, reader.series(which, recent)),
        "hours": [
            {"start": _utc(start), **_sums(added(models.values())), "models": _by_model(models)}
            for start, models in zip(hours, by_model, strict=False)
        ],
        "days": [
            {"date": start.date().isoformat(), **one}
            for start, one in zip(days, _parts_of(days, totals.between(days)), strict=False)
        ],
        "weeks": [_week(parts[number : number + 8], totals) for number in range(0, len(parts) - 1, 7)],
    }


class _TotalsByTime:
    """All requests by provider and by the parts of time between some edges. The ledger is read once."""

    def __init__(self, reader: LedgerReader, which: Filter, edges: Iterable[datetime]) -> None:
        self._edges = [_BEGINNING, *sorted({edge.astimezone(UTC) for edge in edges}), _END]
        self._parts = reader.grouped_series(which, self._edges, "provider")
        names = {name for part in self._parts for name in part}
        sums = {name: added(part[name] for part in self._parts if name in part) for name in names}
        order = sorted(sums, key=lambda name: (-sums[name].requests, name or ""))
        self.by_provider = {name: sums[name] for name in order}

    def between(self, edges: Sequence[datetime]) -> list[Totals]:
        """The sums between two neighbours of these edges, which are some of those that it was made with."""
        places = [self._edges.index(edge) for edge in edges]
        return [
            added(one for part in self._parts[begin:end] for one in part.values())
            for begin, end in pairwise(places)
        ]


def _week(edges: Sequence[datetime], totals: _TotalsByTime) -> dict[str, Any]:
    """`edges` of its seven days."""
    days = totals.between(edges)
    sums = _sums(added(days))
    return {"start": _utc(edges[0]), "end": _utc(edges[-1]), **sums, "days": _parts_of(edges, days)}


def _floor(moment: datetime, step: timedelta) -> datetime:
    return datetime.fromtimestamp(moment.timestamp() // step.total_seconds() * step.total_seconds(), UTC)


def _edges(first: datetime, step: timedelta, number: int) -> list[datetime]:
    """In steps of real time, also over a change of the clock."""
    begin = first.astimezone(UTC)
    return [begin + place * step for place in range(number + 1)]


def _week_parts(week: Week, now: datetime) -> list[datetime]:
    """Beginnings of the seven days of each of the last weeks, oldest first, and the end of the last one."""
    running = period("week", week, now)
    spans = [running]
    while len(spans) < WEEKS:
        spans.append(period("week", week, spans[-1].start - timedelta(hours=1)))
    zone = zone_of(week)
    edges = []
    for span in reversed(spans):
        begin = span.start.astimezone(zone).replace(tzinfo=None)
        walls = (begin + timedelta(days=day) for day in range(7))
        days = [(wall.astimezone() if zone is None else wall.replace(tzinfo=zone)) for wall in walls]
        edges += [span.start, *(day.astimezone(UTC) for day in days[1:])]
    return [*edges, running.end]


def _sums(totals: Totals) -> dict[str, Any]:
    sums = rounded(totals)
    return {name: getattr(sums, name) for name in (*SUMS, "cancelled", "unpriced")}


def _parts_of(edges: Sequence[datetime], parts: Sequence[Totals]) -> list[dict[str, Any]]:
    return [{"start": _utc(start), **_sums(one)} for start, one in zip(edges, parts, strict=False)]


def _by_model(models: Mapping[str | None, Totals]) -> dict[str, Any]:
    return {name or "": _sums(one) for name, one in models.items()}


def _utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


# charts


def charts(data: Mapping[str, Any], week: Week, now: datetime) -> dict[str, Chart]:
    """By its name each chart of the page."""
    zone = zone_of(week)
    return {
        chart.id: chart
        for chart in (
            _recent(data["recent"], zone),
            _hours(data["hours"], zone),
            _weeks(data["weeks"], zone, now),
            _money(data["days"]),
            _tokens(data["days"]),
            _cache(data["days"]),
        )
    }


def _recent(parts: Sequence[Mapping[str, Any]], zone: tzinfo | None) -> Chart:
    starts = [_local(part["start"], zone) for part in parts]
    labels = [f"{start:%H:%M}" for start in starts]
    ticks = [(n, f"{start:%H:%M}") for n, start in enumerate(starts) if start.minute % 30 < MINUTES]
    answered = [part["requests"] - part["errors"] - part["cancelled"] for part in parts]
    series = [
        Series("answered", "ok", answered),
        Series("cancelled", "cancelled", [part["cancelled"] for part in parts]),
        Series("errors", "error", [part["errors"] for part in parts]),
    ]
    description = "Requests of the last three hours in parts of three minutes, by how they ended."
    return bars("recent", "Last 3 hours", description, Axis("from", labels, ticks), series, format.whole)


def _hours(hours: Sequence[Mapping[str, Any]], zone: tzinfo | None) -> Chart:
    starts = [_local(part["start"], zone) for part in hours]
    sizes: dict[str, int] = {}
    for part in hours:
        for name, sums in part["models"].items():
            sizes[name] = sizes.get(name, 0) + all_tokens(sums)
    names = sorted(sizes, key=lambda name: (-sizes[name], name))
    own, rest = names[:MODELS], names[MODELS:]
    series = [
        Series(name or "(none)", style, [all_tokens(part["models"].get(name)) for part in hours])
        for name, style in zip(own, PALETTE, strict=False)
    ]
    if rest:
        others = [sum(all_tokens(part["models"].get(name)) for name in rest) for part in hours]
        series.append(Series(f"{len(rest)} others", "other", others))
    ticks = [(number, f"{start:%H:00}") for number, start in enumerate(starts) if start.hour % 3 == 0]
    axis = Axis("hour", [f"{start:%a %H:00}" for start in starts], ticks)
    description = "Tokens of the last 24 hours, all four kinds, by the hour and the model that was asked for."
    return bars("hours", "Last 24 hours by model", description, axis, series, format.tokens)


def _weeks(weeks: Sequence[Mapping[str, Any]], zone: tzinfo | None, now: datetime) -> Chart:
    """Sums since the beginning of the week, one line for each week: of cost, or of tokens where no price is
    known."""
    compared = list(weeks[-COMPARED:])
    priced = any(week["cost"] for week in compared)
    begins = [_local(day["start"], zone) for day in compared[-1]["days"]]
    begun = sum(begin <= now for begin in begins)
    series = []
    for back, week in enumerate(reversed(compared)):
        total = 0.0
        totals: list[float | None] = []
        for day in week["days"]:
            total += (day["cost"] or 0) if priced else all_tokens(day)
            totals.append(total)
        if back == 0:
            totals = [value if place < begun else None for place, value in enumerate(totals)]
        start = _local(week["start"], zone)
        name = ("this week", "last week")[back] if back < 2 else f"of {start:%d %b}"
        series.append(Series(name, f"week{back}", totals))
    labels = [f"{day:%a}" for day in begins]
    axis = Axis("until the end of", labels, list(enumerate(labels)))
    what = "Cost" if priced else "Tokens"
    description = f"{what} since the week began, day by day, of this week and the {len(compared) - 1} before."
    unit = format.usd if priced else format.tokens
    return lines("weeks", f"Weeks compared: {what.lower()}", description, axis, series, unit)


def _money(days: Sequence[Mapping[str, Any]]) -> Chart:
    series = [
        Series("cost", "cost", [day["cost"] for day in days]),
        Series("saved", "saved", [day["saved"] for day in days]),
    ]
    description = (
        "Cost of each of the last 30 days, and above it the savings against list prices; below the line what"
        " it cost more than these."
    )
    return bars("money", "Cost and savings, 30 days", description, _day_axis(days), series, format.usd)


def _tokens(days: Sequence[Mapping[str, Any]]) -> Chart:
    series = [Series(name, style, [day[column] for day in days]) for name, column, style in KINDS]
    description = "Tokens of each of the last 30 days by their kind."
    return bars("tokens", "Tokens, 30 days", description, _day_axis(days), series, format.tokens)


def _cache(days: Sequence[Mapping[str, Any]]) -> Chart:
    series = [Series("read from cache", "c2", [day["cache_hit"] for day in days])]
    description = "Percent of the input tokens of each of the last 30 days that were read from a cache."
    axis = _day_axis(days)
    return lines("cache", "Cache hits, 30 days", description, axis, series, format.percent, top=100)


def _day_axis(days: Sequence[Mapping[str, Any]]) -> Axis:
    dates = [datetime.fromisoformat(day["date"]) for day in days]
    ticks = [
        (number, f"{date:%d %b}") for number, date in enumerate(dates) if (len(dates) - 1 - number) % 7 == 0
    ]
    return Axis("day", [f"{date:%a %d %b}" for date in dates], ticks)


def _local(moment: str, zone: tzinfo | None) -> datetime:
    return datetime.fromisoformat(moment).astimezone(zone)


def all_tokens(sums: Mapping[str, Any] | None) -> int:
    return 0 if sums is None else sum(sums[name] for name in TOKEN_FIELDS)


# the page


def page(data: Mapping[str, Any], now: Mapping[str, Any], week: Week) -> dict[str, Any]:
    """What overview.html shows: `data` is the result of `figures`, `now` as data.json has it."""
    zone, totals, providers = zone_of(week), data["totals"], data["providers"]
    styles = styles_of((*now["providers"], *(one["provider"] for one in providers)))
    whole = sum(one["requests"] for one in providers)
    slowest = max((one["first_byte_p95_ms"] or 0 for one in providers), default=0)
    return {
        "charts": charts(data, week, datetime.fromisoformat(now["timestamp"])),
        "totals": totals,
        "all_tokens": all_tokens(totals),
        "all_input": all_tokens(totals) - totals["output_tokens"],
        "styles": styles,
        "windows": list(_windows(now, zone)),
        "states": [_state(name, one, now) for name, one in now["providers"].items()],
        "providers": [
            one
            | {
                "all_tokens": all_tokens(one),
                "spans": bar_parts([(styles[one["provider"]], one["requests"])], whole),
            }
            for one in providers
        ],
        "first_bytes": [
            one | {"spans": _first_byte(one, styles[one["provider"]], slowest)}
            for one in providers
            if one["first_byte_p50_ms"] is not None
        ],
    }


def styles_of(names: Iterable[str]) -> dict[str, str]:
    """A colour for each provider, the same while their names are."""
    return {name: PALETTE[number % len(PALETTE)] for number, name in enumerate(sorted(set(names)))}


def _first_byte(one: Mapping[str, Any], style: str, slowest: int) -> list[BarPart]:
    """A bar to the median, and from there a light one to the 95th of a hundred."""
    p50, p95 = one["first_byte_p50_ms"], one["first_byte_p95_ms"]
    return bar_parts([(style, p50), (f"{style} light", p95 - p50)], slowest)


def _windows(now: Mapping[str, Any], zone: tzinfo | None) -> Iterator[dict[str, Any]]:
    """The quota windows of all providers and accounts that were ever heard of."""
    for name, provider in now["providers"].items():
        quota = provider["quota"] or {}
        accounts = {"": quota, **quota.get("accounts", {})}
        for account, meter in accounts.items():
            of = f"{name} {PurePath(account).name}" if account else name
            for window, one in meter.get("windows", {}).items():
                if one["percent"] or one["resets_at"]:
                    yield {"of": of, "name": window, **_window(one, zone)}


def _window(one: Mapping[str, Any], zone: tzinfo | None) -> dict[str, Any]:
    percent = one["percent"]
    is_shut = one["status"] not in (None, "allowed") and not str(one["status"]).startswith("allowed")
    reset = _local(one["resets_at"], zone) if one["resets_at"] else None
    return {
        "percent": percent,
        "state": "bad" if is_shut or percent >= 95 else "warn" if percent >= 75 or one["forecast"] else "",
        "resets": f"resets {reset:%a %H:%M}" if reset else "",
        "forecast": one["forecast"],
    }


def _state(name: str, one: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """A provider in the rules."""
    well = one["available"] and one["circuit"] == "closed"
    state = "good" if well else "warn" if one["available"] else "bad"
    return {"name": name, **one, "state": state, "budget": now["budgets"].get(name)}
