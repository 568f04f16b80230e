"""`signalbox check`: errors in rules.yaml, and warnings about likely mistakes."""

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import click
import msgspec

from signalbox.anthropic.api import MESSAGES
from signalbox.anthropic.json_edit import Body
from signalbox.anthropic.models import listed
from signalbox.cli.options import PORT, default_rules
from signalbox.config import document, lint
from signalbox.config.document import Finding, quoted, step
from signalbox.config.load import RulesError, load
from signalbox.config.rules import DEFAULT_MODELS, Match, Provider, Rule, Rules, Target
from signalbox.config.watch import counted
from signalbox.openai.dialects import dialect_of, matches_any
from signalbox.ports import is_free
from signalbox.responses.dialects import dialect_of as responses_dialect_of
from signalbox.routing.facts import Facts
from signalbox.routing.match import first_match
from signalbox.routing.plan import model_sent
from signalbox.state.logins import logins_of

MAKERS = {"openai", "gemini", "kimi", "glm", "minimax", "deepseek", "mistral", "xai", "codex"}
"""Dialects of providers that serve no models but their own."""


def check(path: Path, environ: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Errors and warnings, each one line."""
    errors, warnings, _ = checked(path, environ)
    return errors, warnings


@click.command("check")
@click.argument("rules", required=False, type=click.Path(path_type=Path))
def check_command(rules: Path | None) -> None:
    """Check RULES (default: rules.yaml here, else the project's)."""
    path = rules or default_rules()
    errors, warnings, found = checked(path, os.environ)
    for line in errors:
        click.secho(line, fg="red", err=True)
    for line in warnings:
        click.secho(line, fg="yellow")
    if found is None:
        raise SystemExit(1)
    click.secho(f"{path.name}: ok, {counted(found)}", fg="green")


def checked(path: Path, environ: Mapping[str, str]) -> tuple[list[str], list[str], Rules | None]:
    """Errors and warnings, each one line, and the rules unless they have errors."""
    try:
        rules = load(path, environ)
    except RulesError as error:
        return list(error.errors), [], None
    root, _ = document.read_yaml(document.decode_utf8(path.read_bytes()))
    found = [
        *lint.findings(rules),
        *lint.on_a_plan(rules, root),
        *_routed_elsewhere(rules, root),
        *_without_listener(rules),
        *_unserved(rules),
        *_without_api(rules),
        *_without_reasoning(rules, root),
    ]
    lines = [finding.within(path.name) for finding in sorted(found)]
    return [], [*rules.warnings, *lines, *lint.falling_through(rules), *_logged_out(rules)], rules


def _without_listener(rules: Rules) -> Iterator[Finding]:
    """Ports in rules on which nothing listens, neither by the rules nor at the moment."""
    listening = {PORT, *(listener.port for listener in rules.listen.values())}
    for i, rule in enumerate(rules.rules):
        for port in sorted({port for port in rule.match.port if isinstance(port, int)} - listening):
            listening.add(port)  # reported once
            if is_free(port):
                remedy = f"`listen: {{NAME: '127.0.0.1:{port}'}}`"
                message = f"nothing listens on port {port} now: it takes {remedy}"
                yield Finding(rule.line, message, f"$.rules[{i}].match.port")


def _reached(rules: Rules) -> Iterator[tuple[int, Rule, str]]:
    """The rules to which requests for the models of the tiers may come: index, rule and model asked."""
    for tier, model in DEFAULT_MODELS.items():
        for i, rule in enumerate(rules.rules):
            if lint.by_model_alone(Match(model=rule.match.model, tier=rule.match.tier), tier, model):
                yield i, rule, model
            if lint.by_model_alone(rule.match, tier, model):
                break


def _targets(rule: Rule) -> Iterator[Target]:
    return (target for equals in rule.choices for target in equals)


def _unserved(rules: Rules) -> Iterator[Finding]:
    """Targets that would be asked for a Claude model, although their provider serves only its own models."""
    found: dict[tuple[int, str], Finding] = {}
    for i, rule, model in _reached(rules):
        for target in _targets(rule):
            name = target.provider
            if _is_unserved(target, rules.providers[name], model):
                message = f"{name} is asked for {model}, which it does not have: write {name}/MODEL"
                found.setdefault((i, name), Finding(rule.line, message, f"$.rules[{i}].to"))
    yield from found.values()


def _is_unserved(target: Target, provider: Provider, model: str) -> bool:
    host = (None, provider.url.host, provider.url.port)
    match provider.api_for(model):
        case "openai":
            maker: str = dialect_of(*host).name
        case "responses":
            maker = responses_dialect_of(*host).name
        case _:
            return False
    renamed = target.model is not None or any(glob.matches(model) for glob, _ in provider.rename)
    return maker in MAKERS and not renamed


def _without_api(rules: Rules) -> Iterator[Finding]:
    """Targets whose model no glob of their provider's `api` matches."""
    named = [
        (i, rule, target, target.model)
        for i, rule in enumerate(rules.rules)
        for target in _targets(rule)
        if target.model is not None and "{model}" not in target.model
    ]
    passed = [(i, rule, target, asked) for i, rule, asked in _reached(rules) for target in _targets(rule)]
    found: dict[tuple[int, str], Finding] = {}
    for i, rule, target, asked in (*named, *passed):
        provider = rules.providers[target.provider]
        model = model_sent(provider, target, asked)
        if not provider.has_api_for(model):
            message = f"no glob in the api of {provider.name} matches {model}, so it is asked as anthropic"
            found.setdefault((i, provider.name), Finding(rule.line, message, f"$.rules[{i}].to"))
    yield from found.values()


def _without_reasoning(rules: Rules, root: document.Mapping) -> Iterator[Finding]:
    """Providers asked over chat completions for models that take tools there only without reasoning, though
    their provider has another API (openai-chat.md, 1)."""
    found: dict[str, Finding] = {}
    for target in (target for rule in rules.rules for target in _targets(rule)):
        provider = rules.providers[target.provider]
        named = (target.model,) if target.model is not None else (to for _, to in provider.rename)
        for model in named:
            row = dialect_of(provider.dialect, provider.url.host, provider.url.port)
            if provider.api_for(model) == "openai" and matches_any(model, row.tools_without_effort):
                line, path = _place(root, provider.name, "api")
                message = f"{model} takes tools here only without reasoning: write api: responses"
                found.setdefault(provider.name, Finding(line, message, path))
    yield from found.values()


def _logged_out(rules: Rules) -> Iterator[str]:
    """Providers whose login is missing or expired."""
    logins = logins_of(rules)
    for provider in rules.providers.values():
        if refusal := logins.refusal(provider, time.time()):
            yield f'provider "{provider.name}" is unavailable: {refusal[1]}'


def _routed_elsewhere(rules: Rules, root: document.Mapping) -> Iterator[Finding]:
    """Models that a provider adds to the model list and that the rules send to another provider.

    Checks only models that the rules name: no provider is asked for its list.
    """
    for provider in rules.providers.values():
        for place, model in enumerate(provider.models if isinstance(provider.models, tuple) else ()):
            if to := _elsewhere(rules, provider, model.id):
                path = step(step(step("$.providers", provider.name), "models"), place)
                message = f"model {quoted(model.id)} is listed for {provider.name} and routed to {to}"
                yield Finding(_line(root, provider.name, place), message, path)


def _elsewhere(rules: Rules, provider: Provider, id: str) -> str:
    """The first target of a plain request for this model, if it is another provider's; else empty."""
    body = Body.parse(msgspec.json.encode({"model": listed(id), "messages": []}))
    rule = first_match(rules, Facts(path=MESSAGES, port=PORT, headers={}, body=body))
    if rule is None:
        return "" if provider.is_anthropic else "the upstream"
    first = rule.choices[0] if rule.choices else ()
    names = [target.provider for target in first]
    return "" if provider.name in names else " or ".join(names) or "no provider"


def _place(root: document.Mapping, provider: str, key: str) -> tuple[int, str]:
    """Line and path of a provider's key."""
    written = _written(root, provider)
    line = written.lines.get(key, written.line) if isinstance(written, document.Mapping) else written.line
    return line, step(step("$.providers", provider), key)


def _written(root: document.Mapping, provider: str) -> document.Node:
    providers = root.get("providers")
    return providers.items[provider] if isinstance(providers, document.Mapping) else root


def _line(root: document.Mapping, provider: str, place: int) -> int:
    written = _written(root, provider)
    models = written.get("models") if isinstance(written, document.Mapping) else None
    return models.items[place].line if isinstance(models, document.Sequence) else written.line
