"""`signalbox test`: plays situations of providers through the rules, against fakes on this machine."""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
import msgspec

from signalbox.cli.options import PORT, default_rules, rules_option
from signalbox.config.fields import Secret
from signalbox.config.load import RulesError, load
from signalbox.config.rules import Rules
from signalbox.config.schema import SecretSource
from signalbox.record.console import escaped
from signalbox.scenarios import format
from signalbox.scenarios.results import Played

SOON = 0.5
"""Seconds up to which a time is not told."""


@click.command("test")
@click.argument("scenarios", nargs=-1, metavar="[SCENARIO]...")
@rules_option
@click.option("--list", "lists", is_flag=True, help="Only list the scenarios.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def test_command(scenarios: tuple[str, ...], file: Path | None, lists: bool, as_json: bool) -> None:
    """Play recorded situations through the rules, and say who answered, after what, and what the client saw.

    SCENARIO is a name, or a file; without one all are played: those that come with the router, and your own
    in scenarios/ beside the rules. Local fakes stand for the providers of the rules, with keys of their own:
    no other host is asked, no command or file with a key is read, and what the router has stored stays as it
    is. Waits take no time: the clock jumps over them. Exit code 1 where a client got no answer.
    """
    path = file or default_rules()
    try:
        chosen = format.chosen(scenarios, path)
        if lists:
            _print_list(chosen, as_json=as_json)
            return
        played = _play(_rules(path), chosen)
    except format.ScenarioError as faults:
        click.echo(str(faults), err=True)
        raise SystemExit(2 if isinstance(faults, format.UnknownScenarioError) else 1) from None
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(played), indent=2, ensure_ascii=False))
    else:
        for line in lines(played):
            click.echo(line)
    if not all(one.is_well for one in played):
        raise SystemExit(1)


def _print_list(chosen: list[format.Named], *, as_json: bool) -> None:
    if as_json:
        found = [{"scenario": one.name, "about": one.scenario.about} for one in chosen]
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    for one in chosen:
        click.echo(f"{one.name:18}{one.scenario.about}")


def _rules(path: Path) -> Rules:
    """The rules, without their secrets. Errors are printed and end the command with exit code 1."""
    try:
        return load(path, os.environ, fetch=_unread)
    except RulesError as error:
        click.echo("\n".join(error.errors), err=True)
        raise SystemExit(1) from None


def _unread(sources: Iterable[SecretSource]) -> dict[SecretSource, Secret]:
    return dict.fromkeys(sources, Secret("fake"))


def _play(rules: Rules, chosen: list[format.Named]) -> list[Played]:
    from signalbox.scenarios.play import play  # which imports the router and mitmproxy

    return play(rules, chosen, PORT)


def lines(played: list[Played]) -> Iterator[str]:
    """For people: a paragraph for each scenario, and what came of all."""
    before = ""
    for one in played:
        if one.scenario != before:
            yield click.style(f"{one.scenario}: {one.about}", bold=True)
            before = one.scenario
        yield from _request(one)
    well = sum(one.is_well for one in played)
    color = "green" if well == len(played) else "red"
    yield click.style(f"{well} of {len(played)} requests got what they should", fg=color)


def _request(one: Played) -> Iterator[str]:
    mark = click.style("ok  ", fg="green") if one.is_well else click.style("FAIL", fg="red")
    yield f"  {mark} {escaped(one.model)} by rule {escaped(one.rule or 'none')}"
    for skip in one.skipped:
        why = f"{_target(skip.provider, skip.model)} skipped: {skip.detail or skip.reason}"
        yield f"         {escaped(why)}"
    for attempt in one.attempts:
        after = f" after {_seconds(attempt.took)}" if attempt.took > SOON else ""
        detail = f", {attempt.detail}" if attempt.detail else ""
        target = _target(attempt.provider, attempt.model)
        yield f"         {escaped(f'{target} {attempt.outcome}{after}{detail}')}"
    yield f"         {escaped(_seen(one))}"


def _target(provider: str, model: str | None) -> str:
    return f"{provider}/{model}" if model else provider


def _seen(one: Played) -> str:
    seen = one.seen
    parts = []
    if one.repeats:
        parts.append(f"asked again {'once' if one.repeats == 1 else f'{one.repeats} times'} after a cut")
    if seen.head_after is not None and (seen.text_after or seen.ended_after) - seen.head_after > SOON:
        parts.append(f"status {seen.status} after {_seconds(seen.head_after)}, {seen.pings} pings")
    if seen.text_after is not None:
        late = f" after {_seconds(seen.text_after)}" if seen.text_after > SOON else ""
        parts.append(f"the first words{late}")
    if seen.error:
        status = f"{seen.status} " if seen.status and not seen.is_cut else ""
        parts.append(f"{status}{seen.error}")
    end = f"answered by {one.answered_by}" if one.answered_by else "no answer"
    return f"{end}; the client saw: {', '.join(parts) or 'nothing'}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
