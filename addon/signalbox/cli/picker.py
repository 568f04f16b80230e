"""`signalbox picker`: Claude Code's model picker shows what GET /v1/models of the router would list."""

import asyncio
import os
import time
from pathlib import Path

import click

from signalbox.background import picker
from signalbox.background.model_list import ModelLists
from signalbox.cli.check import default_rules
from signalbox.cli.learned import state_option
from signalbox.config.load import RulesError, load
from signalbox.config.rules import Listen
from signalbox.record.console import escaped
from signalbox.state.logins import logins_of

USUAL = Listen("127.0.0.1", 8082)
"""Where `just run` listens."""


@click.command("picker")
@click.option("--rules", "file", type=click.Path(path_type=Path), help="Default: as for `check`.")
@state_option
def picker_command(file: Path | None, state: Path) -> None:
    """Write the picker file of Claude Code, for each account. Asks the providers for their lists."""
    try:
        rules = load(file or default_rules(), os.environ)
    except RulesError as error:
        click.echo("\n".join(error.errors), err=True)
        raise SystemExit(1) from None
    logins = logins_of(rules)
    lists = ModelLists(state, token_of=lambda provider: logins.of(provider.login, time.time()).token)
    gathered = asyncio.run(lists.gather(rules))
    first = next(iter(rules.listen.values()), USUAL)
    written = picker.write(rules, gathered, picker.url_of(first.host, first.port), now=time.time())
    for one in written:
        click.echo(escaped(one.line), err=bool(one.fault))
    if any(one.fault for one in written):
        raise SystemExit(1)
