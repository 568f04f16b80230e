"""What is allowed in rules.yaml and still surely not meant."""

import ipaddress
from collections.abc import Iterator, Mapping

from . import document
from .build import LEVELS
from .faults import Fault, shown, step
from .rules import ANTHROPIC_HOST, Match, Provider, Rules
from .variables import set_in

_LOCAL = (".localhost", ".local", ".lan", ".internal", ".home.arpa", ".intranet", ".test")
"""Ends of names that stand for this machine or its own network, in private use or by RFC 6761, 6762, 8375."""


def warnings(
    rules: Rules, root: document.Mapping, variables: Mapping[str, str], places: Mapping[str, str]
) -> tuple[str, ...]:
    """One line each, with its place in the document `root` that the rules were made from.

    `places` has `FILE:LINE` for each of the variables that an `.env` file sets.
    """
    found = [*_log_level(root, variables, places), *_unreachable(rules)]
    found += [*_impossible(rules), *_twice(rules)]
    for provider in rules.providers.values():
        found += [*_keys(provider, root, places), *_exposed(provider, root)]
    return tuple(fault.within(rules.file.name) for fault in sorted(found))


def _log_level(
    root: document.Mapping, variables: Mapping[str, str], places: Mapping[str, str]
) -> Iterator[Fault]:
    level = variables.get("LOG_LEVEL", "info")
    if level.lower() not in LEVELS:
        expected = f"expected {', '.join(LEVELS)}"
        message = f"LOG_LEVEL is {shown(level)}: {expected}{set_in('${LOG_LEVEL}', places)}"
        yield Fault(root.lines.get("log", 1), message, "$.log.level")


def _unreachable(rules: Rules) -> Iterator[Fault]:
    for i, rule in enumerate(rules.rules[:-1]):
        if _matches_everything(rule.match):
            message = "the rules after this one are never reached: it matches everything"
            yield Fault(rule.line, message, f"$.rules[{i}]")
            return


def _matches_everything(match: Match) -> bool:
    return match == Match() or (
        any(not glob.text.strip("*") for glob in match.model) and match == Match(model=match.model)
    )


def _keys(provider: Provider, root: document.Mapping, places: Mapping[str, str]) -> Iterator[Fault]:
    for i, key in enumerate(provider.keys):
        line, path, written = _place(
            root, provider.name, "key" if _has(root, provider.name, "key") else "keys"
        )
        if isinstance(written, document.Sequence):
            written = written.items[i]
        if key.value is None:
            origin = set_in(written.text, places) if isinstance(written, document.Scalar) else ""
            gone = f': provider "{provider.name}" is unavailable' if provider.key is None else ""
            yield Fault(line, key.reason + origin + gone, path)
        elif key.value.startswith("sk-ant-") and provider.url.host != ANTHROPIC_HOST:
            yield Fault(line, f"a key of Anthropic's is configured for {provider.url.host}", path)


def _exposed(provider: Provider, root: document.Mapping) -> Iterator[Fault]:
    """Credentials that others could read or that go to somebody they were not meant for."""
    host, callers = provider.url.host, provider.auth in ("client", "claude-login")
    if callers and not is_anthropics(host):
        line, path, _ = _place(root, provider.name, "auth")
        whose = "the caller's own key or login" if provider.auth == "client" else "a login of Claude Code"
        yield Fault(line, f"{whose} goes to {host}, which is not Anthropic's: write key: in its place", path)
    if provider.url.scheme == "http" and is_public(host) and (callers or provider.keys):
        line, path, _ = _place(root, provider.name, "url")
        what = "the caller's own key or login" if callers else "the key"
        yield Fault(line, f"{what} goes to {host} unencrypted: write https://", path)


def is_anthropics(host: str) -> bool:
    return host == "anthropic.com" or host.endswith(".anthropic.com")


def is_public(host: str) -> bool:
    """Whether the way to `host` may lead out of this machine and its own network. Looks nothing up."""
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return "." in host.rstrip(".") and not host.rstrip(".").lower().endswith(_LOCAL)


def _impossible(rules: Rules) -> Iterator[Fault]:
    """Conditions that no request can meet."""
    for i, rule in enumerate(rules.rules):
        match, path = rule.match, f"$.rules[{i}].match"
        over, under = match.tokens_over, match.tokens_under
        if over is not None and under is not None and under - over < 2:
            message = f"no request has more than {over} and fewer than {under} tokens"
            yield Fault(rule.line, f"this rule is never reached: {message}", path)
        for glob in match.client:
            if not any(glob.matches(name) for name in rules.clients):
                yield Fault(rule.line, f"no client is called {shown(glob.text)}", f"{path}.client")


def _twice(rules: Rules) -> Iterator[Fault]:
    """Names that would stand for two rules in the log and in headers."""
    seen: dict[str, int] = {}
    for i, rule in enumerate(rules.rules):
        if (first := seen.setdefault(rule.label, rule.line)) != rule.line:
            message = f"the rule on line {first} has the name {shown(rule.label)} too"
            yield Fault(rule.line, message, f"$.rules[{i}].name")


def _has(root: document.Mapping, provider: str, key: str) -> bool:
    return _place(root, provider, key)[2] is not None


def _place(root: document.Mapping, provider: str, key: str) -> tuple[int, str, document.Node | None]:
    """Line, path and value of a provider's key; those of the provider where the key is not given."""
    path = step("$.providers", provider)
    providers = root.get("providers")
    written = providers.items[provider] if isinstance(providers, document.Mapping) else root
    if isinstance(written, document.Mapping) and (value := written.get(key)) is not None:
        return written.lines[key], step(path, key), value
    return written.line, path, None
