"""`signalbox stats`: sums over the ledger."""

import csv
import json
import math
import os
import sqlite3
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from signalbox.anthropic.api import TOKEN_FIELDS
from signalbox.cli.options import default_rules, state_option
from signalbox.config.fields import parse_duration
from signalbox.config.load import RulesError, load
from signalbox.config.rules import Log
from signalbox.record.console import count, escaped
from signalbox.record.database import FILE
from signalbox.record.entry import Entry
from signalbox.record.request_log import recorded
from signalbox.routing.quota import Quotas
from signalbox.state.quota_files import read_quotas
from signalbox.ui.health import forecast

type By = Literal["model", "provider", "day", "session", "client"]

GROUPS: dict[By, Callable[[Entry], str | None]] = {
    "model": lambda entry: entry.model,
    "provider": lambda entry: entry.backend,
    "day": lambda entry: entry.ts.astimezone().date().isoformat(),
    "session": lambda entry: entry.session,
    "client": lambda entry: entry.client,
}
HEADINGS = (
    "requests",
    "errors",
    "cancelled",
    "input",
    "output",
    "cache write",
    "cache read",
    "cost",
    "median",
    "p95",
)


class Totals(msgspec.Struct, frozen=True):
    """Sums over a group of entries. `cost` is in USD, of the requests whose price is known."""

    requests: int
    errors: int
    cancelled: int
    input_tokens: int
    output_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    cost: float | None
    unpriced: int
    """Requests that used tokens whose price is unknown."""
    median_ms: int | None
    p95_ms: int | None


def totals(entries: list[Entry]) -> Totals:
    statuses = Counter(entry.status for entry in entries)
    costs = [entry.cost for entry in entries if entry.cost is not None]
    latencies = sorted(entry.latency_ms for entry in entries)
    return Totals(
        requests=len(entries),
        errors=statuses["error"],
        cancelled=statuses["cancelled"],
        **{field: sum(getattr(entry, field) for entry in entries) for field in TOKEN_FIELDS},
        cost=round(math.fsum(costs), 6) if costs else None,
        unpriced=sum(
            entry.cost is None and any(getattr(entry, field) for field in TOKEN_FIELDS) for entry in entries
        ),
        median_ms=round(statistics.median(latencies)) if latencies else None,
        p95_ms=latencies[math.ceil(0.95 * len(latencies)) - 1] if latencies else None,
    )


def grouped(found: Iterable[Entry], by: By) -> dict[str | None, list[Entry]]:
    """Days in their order, other groups by number of requests, most first."""
    groups: dict[str | None, list[Entry]] = {}
    for entry in found:
        groups.setdefault(GROUPS[by](entry), []).append(entry)
    if by == "day":
        return dict(sorted(groups.items(), key=lambda group: group[0] or ""))
    return dict(sorted(groups.items(), key=lambda group: (-len(group[1]), group[0] or "")))


def moment_ago(ctx: click.Context, param: click.Parameter, value: str | None) -> datetime | None:
    """The time a duration such as `7d` ago."""
    if value is None:
        return None
    try:
        return datetime.now(UTC) - timedelta(seconds=parse_duration(value))
    except (ValueError, OverflowError):
        raise click.BadParameter(f"{value!r} is not a duration such as 30m, 12h or 7d") from None


@click.command("stats")
@click.option(
    "--since",
    callback=moment_ago,
    metavar="DURATION",
    help="How far back, such as 12h or 7d; everything by default.",
)
@click.option(
    "--by", type=click.Choice(list(GROUPS)), default="model", show_default=True, help="One row for each."
)
@click.option("--json", "form", flag_value="json", help="Print JSON.")
@click.option("--csv", "form", flag_value="csv", help="Print CSV.")
@state_option("Folder of the ledger and the request log.")
@click.option(
    "--rules", type=click.Path(path_type=Path), help="Rules that name the log; default: as for `check`."
)
def stats_command(since: datetime | None, by: By, form: str | None, state: Path, rules: Path | None) -> None:
    """Add up the requests on record: tokens, cost, errors, latency."""
    broken: list[None] = []
    try:
        found = list(recorded(state, _log_file(rules or default_rules()), since, lambda: broken.append(None)))
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from error
    except sqlite3.Error as error:
        raise click.ClickException(f"{state / FILE}: {error}") from error
    if broken:
        click.echo(f"Lines that cannot be read, left out: {len(broken)}", err=True)
    groups = {key: totals(group) for key, group in grouped(found, by).items()}
    if form == "json":
        print_json(groups, totals(found), by)
    elif form == "csv":
        print_csv(groups, by)
    elif not found:
        click.echo(f"No requests on record in {state}{' since then' if since else ' yet'}.")
    else:
        print_table(groups, totals(found), by)
    if form is None:
        for line in forecasts(read_quotas(state), time.time()):
            click.echo(line)


def forecasts(quotas: Quotas, now: float) -> Iterator[str]:
    """`anthropic: 5h full at ~13:40`, for each window that will be full before it resets."""
    for provider, account, meter in quotas.all():
        for name, window in meter.windows.items():
            if told := forecast(name, window.full_at(name, now), now):
                yield f"{provider}{f' ({account})' if account else ''}: {told}"


def _log_file(rules: Path) -> str:
    """The file of the request log by the rules, or the default one."""
    try:
        return load(rules, os.environ).log.file
    except RulesError:
        return Log().file


def print_json(groups: dict[str | None, Totals], overall: Totals, by: By) -> None:
    """`{"by": "model", "groups": [{"model": ..., "requests": ..., ...}], "totals": {"requests": ...}}`."""
    rows = [{by: key, **msgspec.structs.asdict(group)} for key, group in groups.items()]
    answer = {"by": by, "groups": rows, "totals": msgspec.structs.asdict(overall)}
    click.echo(json.dumps(answer, indent=2))


def print_csv(groups: dict[str | None, Totals], by: By) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([by, *Totals.__struct_fields__])
    for key, group in groups.items():
        writer.writerow([key, *msgspec.structs.astuple(group)])


def print_table(groups: dict[str | None, Totals], overall: Totals, by: By) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 1000  # nothing is wrapped in a pipe
    total = _cells(overall)
    rows = [(escaped(key or "—"), _cells(group)) for key, group in groups.items()]
    table = Table(box=None, padding=(0, 2 if console.width >= 120 else 1, 0, 0))
    table.add_column(by, overflow="fold")
    for heading, *cells in zip(HEADINGS, total, *(cells for _, cells in rows), strict=True):
        # Where it is narrow, names and headings are folded, numbers never.
        table.add_column(heading, justify="right", overflow="fold", min_width=max(map(len, cells)))
    for name, cells in rows:
        table.add_row(Text(name), *cells)
    table.add_row("total", *total, style="bold")
    console.print(table)
    if overall.unpriced and overall.cost is not None:
        console.print(f"Requests without a known price, which the cost leaves out: {overall.unpriced}")


def _cells(group: Totals) -> list[str]:
    return [
        *(str(number) for number in (group.requests, group.errors, group.cancelled)),
        *(count(getattr(group, field)) for field in TOKEN_FIELDS),
        "—" if group.cost is None else f"${group.cost:.4f}",
        *("—" if ms is None else f"{ms}ms" for ms in (group.median_ms, group.p95_ms)),
    ]
