"""`signalbox learned`: what providers were seen to reject, and is therefore left out of requests to them."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import platformdirs

from signalbox.record.console import escaped
from signalbox.state.learned_db import FILE
from signalbox.state.unsupported_store import WEEK, Fact, facts, forget

HOUR = 3600.0

state_option = click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    default=lambda: platformdirs.user_state_path("signalbox"),
    help="Folder of what was learned.",
)


@click.group("learned")
def learned_command() -> None:
    """What providers were seen to reject: it is left out of requests to them for a week."""


@learned_command.command("list")
@state_option
def list_command(state: Path) -> None:
    """Print each field or beta with its provider and model."""
    with _readable(state):
        known = facts(state)
    for fact in known:
        hours = (fact.at + WEEK - time.time()) / HOUR
        left = f"{hours / 24:.0f} days" if hours >= 48 else f"{max(hours, 1):.0f} hours"
        click.echo(f"{_line(fact)} (for another {left})")
    if not known:
        click.echo("Nothing was learned.")


@learned_command.command("forget")
@click.argument("provider", required=False)
@click.argument("field", required=False)
@state_option
def forget_command(provider: str | None, field: str | None, state: Path) -> None:
    """Forget everything, or what was learned of PROVIDER, or only FIELD of it. It is sent again at once."""
    with _readable(state, ": nothing was forgotten"):
        gone = forget(state, provider, field)
    for fact in gone:
        click.echo(f"Forgotten: {_line(fact)}")
    if not gone:
        click.echo("There is nothing to forget.")


@contextmanager
def _readable(state: Path, so: str = "") -> Iterator[None]:
    """Ends the command with a line where the file cannot be used."""
    try:
        yield
    except (sqlite3.Error, OSError) as fault:
        raise click.ClickException(f"{state / FILE}: {fault}{so}") from None


def _line(fact: Fact) -> str:
    """Models are named by whoever asks, so nothing of it reaches a terminal as it is."""
    return escaped(
        f"{fact.provider}/{fact.model}: {fact.field}" if fact.model else f"{fact.provider}: {fact.field}"
    )
