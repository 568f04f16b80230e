"""Whether a rule's conditions hold for a request."""

import operator
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

from signalbox.config.fields import Glob
from signalbox.config.regexes import Regex
from signalbox.config.rules import Match, Rule, Rules
from signalbox.routing.facts import Facts

type QuotaUsage = Mapping[tuple[str, str], float]
"""Percent used, by provider and window: `("anthropic", "7d")`. A missing window is unknown."""

NOTHING_KNOWN: QuotaUsage = MappingProxyType({})

_COMPARE = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


def first_match(rules: Rules, facts: Facts, quota: QuotaUsage = NOTHING_KNOWN) -> Rule | None:
    return next((rule for rule in rules.rules if matches(rule.match, facts, quota)), None)


def matches(match: Match, facts: Facts, quota: QuotaUsage = NOTHING_KNOWN) -> bool:
    return not why(match, facts, quota)


def conditions(match: Match) -> list[str]:
    """All conditions in words, such as `model *haiku*` and `thinking true`."""
    named = {
        "model": _globs(match.model),
        "tier": _or(match.tier),
        "path": _globs(match.path),
        "port": _or(map(str, match.port)),
        "client": _globs(match.client),
        **{f"header {name}": _globs(globs) for name, globs in match.header},
        "agent": _or(match.agent),
        "class": _or(match.request_class),
        "project": _globs(match.project),
        **{
            name: str(wanted).lower()
            for name in ("thinking", "images", "stream")
            if (wanted := getattr(match, name)) is not None
        },
        "tools": _globs(match.tools),
        "tokens over": "" if match.tokens_over is None else str(match.tokens_over),
        "tokens under": "" if match.tokens_under is None else str(match.tokens_under),
        "system": _patterns(match.system),
        "prompt": _patterns(match.prompt),
        **{
            f"quota {provider}.{window}": f"{comparison}{percent:g}"
            for (provider, window), (comparison, percent) in match.quota
        },
    }
    return [f"{name} {wanted}" for name, wanted in named.items() if wanted]


def why(match: Match, facts: Facts, quota: QuotaUsage = NOTHING_KNOWN) -> str:
    """The first condition that does not hold, such as `model "x" is not *haiku*`; empty if all hold."""
    return next(_refusals(match, facts, quota), "")


def _refusals(match: Match, facts: Facts, quota: QuotaUsage) -> Iterator[str]:
    """Cheap conditions first. A fact is read only if the rule needs it."""
    yield from _of_the_request(match, facts)
    yield from _of_the_quota(match, quota)
    yield from _of_the_body(match, facts)


def _of_the_request(match: Match, facts: Facts) -> Iterator[str]:
    if match.port and facts.port not in match.port:
        yield f"port {facts.port} is not {_or(map(str, match.port))}"
    if match.path and not _any(match.path, facts.path):
        yield f"path {facts.path} is not {_globs(match.path)}"
    if match.client and not _any(match.client, facts.client):
        yield f"client {_quoted(facts.client)} is not {_globs(match.client)}"
    for name, globs in match.header:
        if not _any(globs, facts.headers.get(name)):
            yield f"header {name} {_quoted(facts.headers.get(name))} is not {_globs(globs)}"
    if match.agent and facts.agent not in match.agent:
        yield f"agent {facts.agent} is not {_or(match.agent)}"
    if match.request_class and facts.request_class not in match.request_class:
        yield f"class {facts.request_class or 'none'} is not {_or(match.request_class)}"
    if match.project and not _any(match.project, facts.project):
        yield f"project {_quoted(facts.project)} is not {_globs(match.project)}"


def _of_the_quota(match: Match, quota: QuotaUsage) -> Iterator[str]:
    for (provider, window), (comparison, percent) in match.quota:
        used = quota.get((provider, window))
        if used is None or not _COMPARE[comparison](used, percent):
            known = "unknown" if used is None else f"{used:g}%"
            yield f"quota {provider}.{window} is {known}, not {comparison}{percent:g}"


def _of_the_body(match: Match, facts: Facts) -> Iterator[str]:
    if match.model and not _any(match.model, facts.model):
        yield f"model {_quoted(facts.model)} is not {_globs(match.model)}"
    if match.tier and facts.tier not in match.tier:
        yield f"tier {facts.tier or 'none'} is not {_or(match.tier)}"
    for name in ("stream", "thinking", "images"):
        wanted = getattr(match, name)
        if wanted is not None and getattr(facts, name) != wanted:
            yield f"{name} is not {str(wanted).lower()}"
    if match.tokens_over is not None and facts.tokens <= match.tokens_over:
        yield f"about {facts.tokens} tokens are not over {match.tokens_over}"
    if match.tokens_under is not None and facts.tokens >= match.tokens_under:
        yield f"about {facts.tokens} tokens are not under {match.tokens_under}"
    if match.tools and not any(_any(match.tools, tool) for tool in facts.tools):
        yield f"no tool is {_globs(match.tools)}"
    if match.system and not any(facts.system_holds(pattern) for pattern in match.system):
        yield f"system text has no {_patterns(match.system)}"
    if match.prompt and not any(facts.prompt_holds(pattern) for pattern in match.prompt):
        yield f"prompt has no {_patterns(match.prompt)}"


def _any(globs: Iterable[Glob], text: str | None) -> bool:
    return text is not None and any(glob.matches(text) for glob in globs)


def _or(texts: Iterable[str]) -> str:
    return " or ".join(texts)


def _globs(globs: Iterable[Glob]) -> str:
    return _or(glob.text for glob in globs)


def _patterns(patterns: Iterable[Regex]) -> str:
    return _or(f"/{pattern.text}/" for pattern in patterns)


def _quoted(text: str | None) -> str:
    return "none" if text is None else f'"{text}"'
