"""Shared by commands: options for the rules and the state folder, and loading the rules."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import platformdirs

from signalbox import places
from signalbox.config.load import RulesError, load
from signalbox.config.rules import Rules
from signalbox.lifecycle.spec import DEFAULT_LISTENER

PORT = DEFAULT_LISTENER.port

rules_option = click.option(
    "--rules", "file", type=click.Path(path_type=Path), help="Default: as for `check`."
)


def state_option[F: Callable[..., Any]](what: str) -> Callable[[F], F]:
    """The option `--state`. Its default is the default state folder of routers."""
    return click.option(
        "--state",
        type=click.Path(file_okay=False, path_type=Path),
        default=lambda: platformdirs.user_state_path("signalbox"),
        help=what,
    )


def default_rules() -> Path:
    """rules.yaml in the current folder, else `places.default_rules`."""
    here = Path("rules.yaml")
    return here if here.exists() else places.default_rules()


def loaded(file: Path | None) -> Rules:
    """The rules in `file`, or in the default file. Errors are printed and end the command with exit code
    1."""
    try:
        return load(file or default_rules(), os.environ)
    except RulesError as error:
        click.echo("\n".join(error.errors), err=True)
        raise SystemExit(1) from None
