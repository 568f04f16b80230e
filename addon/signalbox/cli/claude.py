"""`signalbox claude`: Claude Code, with the router as long as it runs."""

import io
import os
import sys
from pathlib import Path
from typing import get_args

import click

from signalbox.claude.environment import Via
from signalbox.claude.session import Session, run_session
from signalbox.cli.options import loaded, rules_option, state_option
from signalbox.config.fields import Listen
from signalbox.config.rules import Rules
from signalbox.lifecycle.spec import DEFAULT_LISTENER
from signalbox.lifecycle.start import StartError
from signalbox.ports import reached

_OPTIONS = ("--via", "--rules", "--state")
"""Those with a value."""


class OwnOptionsFirst(click.Command):
    """Only what comes first is ours: from the first other argument on all belongs to Claude Code."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = 0
        while own < len(args) and args[own].startswith("-") and args[own] != "--":
            name, equals, _ = args[own].partition("=")
            if name not in (*_OPTIONS, "--plain", "-h", "--help"):
                break
            takes_next = name in _OPTIONS and not equals
            if takes_next and (own + 1 == len(args) or args[own + 1] == "--"):
                raise click.BadOptionUsage(name, f"Option '{name}' requires an argument.", ctx)
            own += 2 if takes_next else 1
        rest = args[own + 1 :] if args[own : own + 1] == ["--"] else args[own:]
        return super().parse_args(ctx, [*args[:own], "--", *rest])


@click.command("claude", cls=OwnOptionsFirst)
@click.option(
    "--via",
    type=click.Choice(get_args(Via.__value__)),
    help="intercept: the router is Claude Code's proxy; all its features stay. base-url: it is its base URL. "
    "Default: intercept, unless a proxy of yours prevents that.",
)
@rules_option
@click.option("--plain", is_flag=True, help="Leave the model picker and the status line as they are.")
@state_option("Folder for records and learned facts, as the router's.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[CLAUDE_ARGUMENTS]...")
def claude_command(
    via: Via | None, file: Path | None, plain: bool, state: Path, arguments: tuple[str, ...]
) -> None:
    """Run Claude Code through the router, which is started and ends with it unless one runs already.

    Further arguments are Claude Code's own. Nothing of your settings is changed.
    """
    if isinstance(sys.stderr, io.TextIOWrapper):  # a console of Windows may have no ✓
        sys.stderr.reconfigure(errors="replace")
    rules = loaded(file)
    session = Session(arguments, rules, state.absolute(), first_listener(rules), via, plain)
    try:
        code = run_session(session, os.environ, say)
    except StartError as error:
        for line in error.lines:
            say(line)
        raise SystemExit(1) from None
    except OSError as error:
        say(f"Claude Code cannot be started: {error}")
        raise SystemExit(126) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    raise SystemExit(code)


def first_listener(rules: Rules) -> Listen:
    """Where the router is looked for, as this machine reaches it."""
    first = next(iter(rules.listen.values()), DEFAULT_LISTENER)
    return Listen(reached(first.host), first.port)


def say(line: str) -> None:
    """Prints a line for people."""
    click.echo(f"signalbox: {line}", err=True)
