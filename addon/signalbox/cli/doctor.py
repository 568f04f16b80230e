"""`signalbox doctor`: what is wrong around the router on this machine, and what to do about it."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import click
import msgspec

from signalbox.claude.settings import home_folder, read_settings
from signalbox.cli.check import checked
from signalbox.cli.options import default_rules, rules_option, state_option
from signalbox.config.load import WITHOUT_FILE
from signalbox.config.rules import Rules
from signalbox.doctor import claude_code, machine, providers
from signalbox.doctor.findings import Check, Finding, Situation
from signalbox.errors import location
from signalbox.lifecycle.running import running
from signalbox.lifecycle.spec import DEFAULT_LISTENER
from signalbox.record.console import escaped

ASK = 1.0
"""Seconds for a router that may run."""
COLORS = {"ok": "green", "warn": "yellow", "fail": "red"}
_UNSEEN: tuple[Check, ...] = ("keys", "providers")
_OF_KEYS = re.compile(r"\(at \$\.providers\.[\w-]+\.keys?(?:\[\d+\])?\)$")
"""A warning that the check of keys gives in its own words."""


@click.command("doctor")
@click.option("--online", is_flag=True, help="Also ask each provider for its model list, with its own key.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@rules_option
@state_option("Folder for records and learned facts, as the router's.")
def doctor_command(online: bool, as_json: bool, file: Path | None, state: Path) -> None:
    """Look for what is wrong around the router, and say what to do about it.

    Looks at ports, mitmproxy's certificate, the rules with their keys and providers, Claude Code with its
    settings and what they switch off, clock, disk and permissions. Changes nothing, and asks no provider
    without --online. Exit code 1 where something fails.
    """
    found = list(findings(file or default_rules(), state.absolute(), online=online))
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(found), indent=2, ensure_ascii=False))
    else:
        for line in lines(found):
            click.echo(line)
    if any(one.state == "fail" for one in found):
        raise SystemExit(1)


def findings(rules_file: Path, state: Path, *, online: bool) -> Iterator[Finding]:
    errors, warnings, loaded = checked(rules_file, os.environ)
    rules = loaded or Rules(file=rules_file)
    situation = _situation(rules, rules_file, state)
    yield from _guarded("port", machine.port, situation)
    yield from _guarded("ca", machine.ca, situation)
    yield from _of_rules(rules, errors, warnings)
    if errors:
        for one in _UNSEEN:
            yield Finding(one, "warn", "not looked at, since the rules have errors", "mend the rules first")
    else:
        yield from _guarded("keys", providers.keys, situation)
        yield from _guarded("providers", providers.providers, situation)
        if online:
            yield from _guarded("providers", _online, situation)
    yield from _guarded("claude", claude_code.claude, situation)
    yield from _guarded("settings", claude_code.settings, situation)
    yield from _guarded("gates", claude_code.gates, situation)
    yield from _guarded("clock", machine.clock, situation)
    yield from _guarded("disk", machine.disk, situation)
    yield from _guarded("permissions", machine.permissions, situation)


def _situation(rules: Rules, rules_file: Path, state: Path) -> Situation:
    home, project = home_folder(), Path.cwd()
    listeners = tuple(rules.listen.values()) or (DEFAULT_LISTENER,)
    asked = {listen: running(listen.host, listen.port, ASK) for listen in listeners}
    return Situation(
        rules=rules,
        rules_file=rules_file,
        state=state,
        environ=os.environ,
        home=home,
        project=project,
        settings=read_settings(os.environ, project, home),
        listeners=listeners,
        running={listen: health for listen, health in asked.items() if health is not None},
        platform=sys.platform,
    )


def _of_rules(rules: Rules, errors: list[str], warnings: list[str]) -> Iterator[Finding]:
    if errors and not rules.file.exists():
        yield Finding("rules", "fail", f"{rules.file} does not exist", WITHOUT_FILE)
        return
    for line in errors:
        yield Finding("rules", "fail", line, "mend that line; docs/rules.md has every key")
    told = [line for line in warnings if _OF_KEYS.search(line) is None and "is unavailable: " not in line]
    for line in told:
        remedy = "mend it, if it is not meant so; `signalbox explain MODEL` shows what follows"
        yield Finding("rules", "warn", line, remedy)
    if not errors and not told:
        count = f"{len(rules.providers)} providers, {len(rules.rules)} rules"
        yield Finding("rules", "ok", f"{rules.file}: {count}")


def _online(situation: Situation) -> Iterator[Finding]:
    asked = providers.ask(situation)
    yield from (one.finding for one in asked)
    yield from providers.compared_clock(asked)


def _guarded(
    check: Check, look: Callable[[Situation], Iterable[Finding]], situation: Situation
) -> Iterator[Finding]:
    """What a check finds; where it fails itself, that is a finding too, and the others go on."""
    try:
        yield from look(situation)
    except Exception as error:
        remedy = "report it: this is a fault of signalbox"
        yield Finding(check, "fail", f"this check failed: {location(error)}", remedy)


def lines(found: list[Finding]) -> Iterator[str]:
    """For people."""
    for one in found:
        state = click.style(f"{one.state:5}", fg=COLORS[one.state])
        yield f"{state}{one.check:12}{escaped(one.message)}"
        if one.remedy:
            yield f"{'':17}{click.style('→', fg='cyan')} {escaped(one.remedy)}"
    failed = sum(one.state == "fail" for one in found)
    warned = sum(one.state == "warn" for one in found)
    said = f"{failed} to mend" if failed else "nothing to mend"
    yield click.style(f"{said}, {warned} to look at", fg="red" if failed else "green")
