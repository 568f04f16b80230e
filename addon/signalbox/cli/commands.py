"""The small commands: `addon-path`, `schema`, `picker`, `statusline`, `learned`."""

import asyncio
import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click

from signalbox import places
from signalbox.background import picker
from signalbox.background.model_list import ModelLists
from signalbox.cli.options import loaded, rules_option, state_option
from signalbox.cli.statusline import print_status_line
from signalbox.config import jsonschema
from signalbox.lifecycle.spec import DEFAULT_LISTENER
from signalbox.ports import url_of
from signalbox.record.console import escaped
from signalbox.state.learned_db import FILE
from signalbox.state.logins import logins_of
from signalbox.state.unsupported_store import WEEK, Fact, facts, forget

HOUR = 3600.0

learned_state = state_option("Folder of what was learned.")


@click.command("addon-path")
def addon_path_command() -> None:
    """Print the path of router.py, for `mitmdump -s "$(signalbox addon-path)"`."""
    click.echo(places.ROUTER)


@click.command("schema")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write it to this file.")
@click.option(
    "--check",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Only compare with this file; exit code 1 if it differs.",
)
def schema_command(out: Path | None, check: Path | None) -> None:
    """Print the JSON Schema of rules.yaml."""
    text = jsonschema.schema_text()
    if check:
        if check.read_text(encoding="utf-8") != text:
            raise click.ClickException(f"{check} is stale; `just schema` renews it")
    elif out:
        try:
            out.write_text(text, encoding="utf-8", newline="\n")
        except OSError as error:
            raise click.ClickException(f"{out} cannot be written: {error.strerror}") from None
    else:
        click.echo(text, nl=False)


@click.command("picker")
@click.option(
    "--settings",
    "prints_settings",
    is_flag=True,
    help="Only print settings for `claude --settings`, with the models' own ids.",
)
@rules_option
@learned_state
def picker_command(file: Path | None, state: Path, prints_settings: bool) -> None:
    """Write the picker file of Claude Code, for each account. Asks the providers for their lists."""
    rules = loaded(file)
    if prints_settings:
        settings = picker.current_settings(rules, state)
        click.echo(json.dumps(settings or {"modelPicker": {"options": []}}, indent=2, ensure_ascii=False))
        return
    logins = logins_of(rules)
    lists = ModelLists(state, token_of=lambda provider: logins.of(provider, time.time()).token)
    gathered = asyncio.run(lists.gather(rules))
    first = next(iter(rules.listen.values()), DEFAULT_LISTENER)
    written = picker.write(rules, gathered, url_of(first.host, first.port), now=time.time())
    for one in written:
        click.echo(escaped(one.line), err=bool(one.fault))
    if any(one.fault for one in written):
        raise SystemExit(1)


@click.command("statusline")
def statusline_command() -> None:
    """Print a line about the running session, for Claude Code's status line, which gives JSON on stdin."""
    print_status_line()


@click.group("learned")
def learned_command() -> None:
    """Fields and betas that providers have rejected: requests to them go without these for a week."""


@learned_command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@learned_state
def list_command(as_json: bool, state: Path) -> None:
    """Print each field or beta with its provider and model."""
    with _readable(state):
        known = facts(state)
    if as_json:
        click.echo(json.dumps([_as_dict(fact) for fact in known], indent=2, ensure_ascii=False))
        return
    for fact in known:
        hours = (fact.at + WEEK - time.time()) / HOUR
        left = f"{hours / 24:.0f} days" if hours >= 48 else f"{max(hours, 1):.0f} hours"
        click.echo(f"{_line(fact)} (for another {left})")
    if not known:
        click.echo("Nothing was learned.")


@learned_command.command("forget")
@click.argument("provider", required=False)
@click.argument("field", required=False)
@learned_state
def forget_command(provider: str | None, field: str | None, state: Path) -> None:
    """Forget everything, what was learned of PROVIDER, or only FIELD of it. It is sent again at once."""
    with _readable(state, ": nothing was forgotten"):
        gone = forget(state, provider, field)
    for fact in gone:
        click.echo(f"Forgotten: {_line(fact)}")
    if not gone:
        click.echo("There is nothing to forget.")


@contextmanager
def _readable(state: Path, so: str = "") -> Iterator[None]:
    """Ends the command with one line if the file cannot be used."""
    try:
        yield
    except (sqlite3.Error, OSError) as fault:
        raise click.ClickException(f"{state / FILE}: {fault}{so}") from None


def _as_dict(fact: Fact) -> dict[str, str]:
    until = datetime.fromtimestamp(fact.at + WEEK, UTC).isoformat(timespec="seconds")
    return {"provider": fact.provider, "model": fact.model, "field": fact.field, "until": until}


def _line(fact: Fact) -> str:
    """Escaped, since callers choose the names of models."""
    return escaped(
        f"{fact.provider}/{fact.model}: {fact.field}" if fact.model else f"{fact.provider}: {fact.field}"
    )
