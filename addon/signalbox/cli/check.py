"""`signalbox check`: what is wrong with rules.yaml, and what is surely not meant."""

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import click
from msgspec.structs import replace

from signalbox.cli.listed import PORT as USUAL_PORT
from signalbox.cli.listed import routed_elsewhere
from signalbox.cli.reach import never_reached
from signalbox.config import document
from signalbox.config.faults import Fault
from signalbox.config.load import PROJECT, RulesError, load
from signalbox.config.pending import not_yet
from signalbox.config.regexes import LIMIT
from signalbox.config.rules import Match, Provider, Rules, Target
from signalbox.config.watch import counted
from signalbox.ports import is_free
from signalbox.state.logins import logins_of
from signalbox.translate.dialects import dialect_of

PROJECT_RULES = PROJECT / "rules.yaml"
MAKERS = {"openai", "gemini", "kimi", "glm", "minimax", "deepseek", "mistral"}
"""Dialects of providers that serve no models but their own."""
TIERS = {"haiku": "claude-haiku-4-5", "sonnet": "claude-sonnet-4-5", "opus": "claude-opus-4-5"}


def check(path: Path, environ: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Errors and warnings, each one line."""
    errors, warnings, _ = _checked(path, environ)
    return errors, warnings


@click.command("check")
@click.argument("rules", required=False, type=click.Path(path_type=Path))
def check_command(rules: Path | None) -> None:
    """Check RULES (default: rules.yaml here, else the project's)."""
    path = rules or default_rules()
    errors, warnings, found = _checked(path, os.environ)
    for line in errors:
        click.secho(line, fg="red", err=True)
    for line in warnings:
        click.secho(line, fg="yellow")
    if found is None:
        raise SystemExit(1)
    click.secho(f"{path.name}: ok, {counted(found)}", fg="green")


def default_rules() -> Path:
    here = Path("rules.yaml")
    return here if here.exists() else PROJECT_RULES


def _checked(path: Path, environ: Mapping[str, str]) -> tuple[list[str], list[str], Rules | None]:
    try:
        rules = load(path, environ)
    except RulesError as error:
        return list(error.errors), [], None
    root, _ = document.read(document.decoded(path.read_bytes()))
    found = [*rules.warnings, *not_yet(root, path.name), *routed_elsewhere(rules, root)]
    faults = [*never_reached(rules.rules), *_unheard(rules), *_slow(rules)]
    found += [fault.within(path.name) for fault in sorted(faults)]
    return [], [*found, *_unserved(rules), *_falling_through(rules), *_logged_out(rules)], rules


def _slow(rules: Rules) -> Iterator[Fault]:
    """Regular expressions that a long text can make so slow that they count as not found."""
    for i, rule in enumerate(rules.rules):
        for key in ("system", "prompt"):
            for pattern in getattr(rule.match, key):
                if pattern.is_slow():
                    message = (
                        f"/{pattern.text}/ cannot be searched in linear time: where a text takes longer than "
                        f"{LIMIT * 1000:g} ms it counts as not found"
                    )
                    yield Fault(rule.line, message, f"$.rules[{i}].match.{key}")


def _unheard(rules: Rules) -> Iterator[Fault]:
    """Ports that rules ask for and on which nobody listens, neither by the rules nor just now."""
    listening = {USUAL_PORT, *(listener.port for listener in rules.listen.values())}
    for i, rule in enumerate(rules.rules):
        for port in sorted(set(rule.match.port) - listening):
            listening.add(port)  # said once
            if is_free(port):
                message = (
                    f"nobody listens on port {port} now: it takes a --mode ...@127.0.0.1:{port} at start"
                )
                yield Fault(rule.line, message, f"$.rules[{i}].match.port")


def _falling_through(rules: Rules) -> Iterator[str]:
    """Tiers that no rule takes by the model alone. Without rules everything is meant to."""
    for tier, model in TIERS.items():
        if rules.rules and not any(_takes(rule.match, tier, model) for rule in rules.rules):
            yield f'tier "{tier}" falls through to the upstream'


def _unserved(rules: Rules) -> Iterator[str]:
    """Targets that would be asked for a model of Claude's by its own name, and have only others."""
    found: dict[tuple[int, str], Fault] = {}
    for tier, model in TIERS.items():
        for i, rule in enumerate(rules.rules):
            if not _takes(Match(model=rule.match.model, tier=rule.match.tier), tier, model):
                continue
            for target in (target for equals in rule.choices for target in equals):
                name = target.provider
                if _is_unserved(target, rules.providers[name], model):
                    message = f"{name} is asked for {model}, which it does not have: write {name}/MODEL"
                    found.setdefault((i, name), Fault(rule.line, message, f"$.rules[{i}].to"))
            if _takes(rule.match, tier, model):
                break
    yield from (fault.within(rules.file.name) for fault in sorted(found.values()))


def _is_unserved(target: Target, provider: Provider, model: str) -> bool:
    is_maker = dialect_of(None, provider.url.host, provider.url.port).name in MAKERS
    renamed = target.model is not None or any(glob.matches(model) for glob, _ in provider.rename)
    return provider.api == "openai" and is_maker and not renamed


def _logged_out(rules: Rules) -> Iterator[str]:
    """Providers that would use a login that is not there."""
    logins = logins_of(rules)
    for provider in rules.providers.values():
        if refusal := logins.refusal(provider, time.time()):
            yield f'provider "{provider.name}" is unavailable: {refusal[1]}'


def _takes(match: Match, tier: str, model: str) -> bool:
    asks_more = replace(match, model=(), tier=()) != Match()
    by_model = not match.model or any(glob.matches(model) for glob in match.model)
    return not asks_more and by_model and (not match.tier or tier in match.tier)
