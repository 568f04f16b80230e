"""`signalbox stats`: sums over the ledger."""

import csv
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from signalbox.cli.options import default_rules, state_option
from signalbox.config.load import RulesError, load
from signalbox.config.rules import LedgerSettings
from signalbox.database_errors import DatabaseError
from signalbox.record.console import count, escaped
from signalbox.record.queries import By, Filter, Latency, LedgerSource, Totals, parse_moment
from signalbox.routing.quota import Quotas
from signalbox.state.quota_files import read_quotas
from signalbox.ui.health import forecast

FIELDS = (
    *(name for name in Totals.__struct_fields__ if name not in ("first", "last")),
    "median_ms",
    "p95_ms",
)
"""Of a group, in this order."""

HEADINGS = {
    "requests": "requests",
    "errors": "errors",
    "cancelled": "cancelled",
    "input_tokens": "input",
    "output_tokens": "output",
    "cache_creation_input_tokens": "cache write",
    "cache_read_input_tokens": "cache read",
    "cache_hit": "cache hit",
    "cost": "cost",
    "list_cost": "list price",
    "saved": "saved",
    "median_ms": "median",
    "p95_ms": "p95",
}
WIDE = 120
"""Columns of a terminal from which on all figures fit beside the names."""
LEFT_OUT = ("cancelled", "list_cost", "median_ms")
"""What a narrower one does not show."""

type Group = dict[str, Any]
"""The figures of a group by their names, `FIELDS`."""


def since_option(ctx: click.Context, param: click.Parameter, value: str | None) -> datetime | None:
    """The time a duration such as `7d` ago, or the one that is named."""
    try:
        return None if value is None else parse_moment(value, datetime.now(UTC))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command("stats")
@click.option(
    "--since",
    callback=since_option,
    metavar="WHEN",
    help="How far back, such as 12h or 7d, or a date; everything by default.",
)
@click.option(
    "--by",
    type=click.Choice(get_args(By.__value__)),
    default="model",
    show_default=True,
    help="One row for each; `cache`: why less was read from the cache than was there.",
)
@click.option("--json", "form", flag_value="json", help="Print JSON.")
@click.option("--csv", "form", flag_value="csv", help="Print CSV.")
@state_option("Folder of the ledger.")
@click.option(
    "--rules", type=click.Path(path_type=Path), help="Rules that name the ledger; default: as for `check`."
)
def stats_command(since: datetime | None, by: By, form: str | None, state: Path, rules: Path | None) -> None:
    """Add up the requests on record: tokens, cost, savings, cache hits, errors, latency."""
    which = Filter(since=since)
    try:
        with closing(LedgerSource(state, _ledger(rules).url)) as source, source.open() as ledger:
            overall = figures(ledger.totals(which), ledger.latency(which, first_byte=False))
            latency = ledger.grouped_latency(which, by, first_byte=False)
            groups = {
                key: figures(totals, latency.get(key, Latency()))
                for key, totals in ledger.grouped(which, by).items()
            }
    except DatabaseError as error:
        raise click.ClickException(f"the ledger cannot be read: {error}") from None
    if form == "json":
        print_json(groups, overall, by)
    elif form == "csv":
        print_csv(groups, by)
    elif not groups:
        click.echo(f"No requests on record in {state}{' since then' if since else ' yet'}.")
    else:
        print_table(groups, overall, by)
    if form is None:
        for line in forecasts(read_quotas(state), time.time()):
            click.echo(line)


def figures(totals: Totals, latency: Latency) -> Group:
    known = msgspec.structs.asdict(totals) | msgspec.structs.asdict(latency)
    return {name: known[name] for name in FIELDS}


def forecasts(quotas: Quotas, now: float) -> Iterator[str]:
    """`anthropic: 5h full at ~13:40`, for each window that will be full before it resets."""
    for provider, account, meter in quotas.all():
        for name, window in meter.windows.items():
            if line := forecast(name, window.full_at(name, now), now):
                yield f"{provider}{f' ({account})' if account else ''}: {line}"


def _ledger(rules: Path | None) -> LedgerSettings:
    """As the rules say; where none are named and the usual ones are missing or broken, the default one."""
    file = rules or default_rules()
    if rules is None and not file.exists():
        return LedgerSettings()
    try:
        return load(file, os.environ).ledger
    except RulesError as error:
        if rules is not None:
            raise click.ClickException("\n".join(error.errors)) from None
        click.echo(f"{error.errors[0]}\nThe ledger of the state folder is added up.", err=True)
        return LedgerSettings()


def print_json(groups: Mapping[str | None, Group], overall: Group, by: By) -> None:
    """`{"by": "model", "groups": [{"model": ..., "requests": ..., ...}], "totals": {"requests": ...}}`."""
    rows = [{by: key, **group} for key, group in groups.items()]
    click.echo(json.dumps({"by": by, "groups": rows, "totals": overall}, indent=2))


def print_csv(groups: Mapping[str | None, Group], by: By) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([by, *FIELDS])
    for key, group in groups.items():
        writer.writerow([key, *group.values()])


def print_table(groups: Mapping[str | None, Group], overall: Group, by: By) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 1000  # nothing is wrapped in a pipe
    is_wide = console.width >= WIDE
    table = Table(box=None, padding=(0, 2 if is_wide else 1, 0, 0))
    table.add_column(by, overflow="fold")
    shown = [name for name in HEADINGS if is_wide or name not in LEFT_OUT]
    for name in shown:
        cells = [_cell(name, group[name]) for group in (*groups.values(), overall)]
        # Where it is narrow, names and headings are folded, numbers never.
        table.add_column(HEADINGS[name], justify="right", overflow="fold", min_width=max(map(len, cells)))
    for key, group in groups.items():
        table.add_row(Text(escaped(key or "—")), *(_cell(name, group[name]) for name in shown))
    table.add_row("total", *(_cell(name, overall[name]) for name in shown), style="bold")
    console.print(table)
    if overall["unpriced"] and overall["cost"] is not None:
        console.print(f"Requests without a known price, which the cost leaves out: {overall['unpriced']}")


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return "—"
    if name in ("cost", "list_cost", "saved"):
        dollars = f"${abs(value):,.2f}" if abs(value) >= 10 else f"${abs(value):.4f}"
        return f"-{dollars}" if value < 0 else dollars
    if name.endswith("_tokens"):
        return count(int(value))
    return f"{value}{'ms' if name.endswith('_ms') else '%' if name == 'cache_hit' else ''}"
