"""Lint: finds what is valid in rules.yaml but most likely a mistake.

`warnings` run at every load, `findings` only in `signalbox check`. Both read the file alone: checks that need
other packages or the network are in `cli.check`.
"""

import fnmatch
import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from msgspec.structs import replace

from . import document
from .clouds import is_amazon
from .document import Finding, Node, quoted, step
from .fields import Glob
from .regexes import LIMIT
from .rules import ANTHROPIC_HOST, DEFAULT_MODELS, Match, Provider, Rule, Rules, tier_of
from .schema import LEVELS
from .secrets import set_in

_LOCAL = (".localhost", ".local", ".lan", ".internal", ".home.arpa", ".intranet", ".test")
"""Suffixes of local host names, from private use or RFC 6761, 6762, 8375."""
CODEX_HOST = "chatgpt.com"
LOGIN_HEADERS = ("authorization", "x-api-key", "api-key")
_TOKEN = re.compile(r"\[!?\]?[^\]]*\]|\*+|.", re.DOTALL)


def warnings(
    rules: Rules, root: document.Mapping, variables: Mapping[str, str], places: Mapping[str, str]
) -> tuple[str, ...]:
    """One line for each, with its place in `root`, the document of the rules.

    `places` has `FILE:LINE` for each of the variables that an `.env` file sets.
    """
    found = [*_log_level(root, variables, places), *_unreachable(rules)]
    found += [*_impossible(rules), *_twice(rules)]
    found += [Finding(root.lines.get("providers", 1), fault, "$") for fault in rules.outbound.faults]
    for provider in rules.providers.values():
        found += [*_keys(provider, root, places), *_exposed(provider, root)]
        found += _unsigned(provider, root)
        found += _out_of_reach(provider, root)
    return tuple(finding.within(rules.file.name) for finding in sorted(found))


def _log_level(
    root: document.Mapping, variables: Mapping[str, str], places: Mapping[str, str]
) -> Iterator[Finding]:
    level = variables.get("LOG_LEVEL", "info")
    if level.lower() not in LEVELS:
        expected = f"expected {', '.join(LEVELS)}"
        message = f"LOG_LEVEL is {quoted(level)}: {expected}{set_in('${LOG_LEVEL}', places)}"
        yield Finding(root.lines.get("log", 1), message, "$.log.level")


def _unreachable(rules: Rules) -> Iterator[Finding]:
    for i, rule in enumerate(rules.rules[:-1]):
        if _matches_everything(rule.match):
            message = "the rules after this one are never reached: it matches everything"
            yield Finding(rule.line, message, f"$.rules[{i}]")
            return


def _matches_everything(match: Match) -> bool:
    return match == Match() or (
        any(not glob.text.strip("*") for glob in match.model) and match == Match(model=match.model)
    )


def _keys(provider: Provider, root: document.Mapping, places: Mapping[str, str]) -> Iterator[Finding]:
    for i, key in enumerate(provider.keys):
        line, path, written = _place(
            root, provider.name, "key" if _has(root, provider.name, "key") else "keys"
        )
        if isinstance(written, document.Sequence):
            written = written.items[i]
        if key.value is None:
            origin = set_in(written.text, places) if isinstance(written, document.Scalar) else ""
            gone = f': provider "{provider.name}" is unavailable' if provider.key is None else ""
            yield Finding(line, key.reason + origin + gone, path)
        elif key.value.startswith("sk-ant-") and provider.url.host != ANTHROPIC_HOST and not provider.claude:
            yield Finding(line, f"a key of Anthropic's is configured for {provider.url.host}", path)


def _unsigned(provider: Provider, root: document.Mapping) -> Iterator[Finding]:
    """An endpoint of Amazon's without an API key."""
    sends_key = provider.keys or any(name.lower() in LOGIN_HEADERS for name in provider.headers)
    if is_amazon(provider.url) and provider.auth != "client" and not sends_key:
        line, path, _ = _place(root, provider.name, "url")
        message = (
            f"{provider.url.host} needs a key: requests are not signed (SigV4), write an API key of Amazon's"
        )
        yield Finding(line, message, path)


def _exposed(provider: Provider, root: document.Mapping) -> Iterator[Finding]:
    """Credentials that are sent unencrypted to a public host, or to a host that they do not belong to."""
    host, callers = provider.url.host, provider.auth == "client" or provider.uses_login
    if provider.auth == "codex-login" and host != CODEX_HOST:
        line, path, _ = _place(root, provider.name, "auth")
        yield Finding(line, f"a login of Codex goes to {host}, which is not {CODEX_HOST}", path)
    elif callers and provider.auth != "codex-login" and not is_anthropics(host):
        line, path, _ = _place(root, provider.name, "auth")
        whose = "the caller's own key or login" if provider.auth == "client" else "a login of Claude Code"
        yield Finding(
            line, f"{whose} goes to {host}, which is not Anthropic's: write key: in its place", path
        )
    if provider.url.scheme == "http" and is_public(host) and (callers or provider.keys):
        line, path, _ = _place(root, provider.name, "url")
        what = "the caller's own key or login" if callers else "the key"
        yield Finding(line, f"{what} goes to {host} unencrypted: write https://", path)


def _out_of_reach(provider: Provider, root: document.Mapping) -> Iterator[Finding]:
    """Providers on this machine that the environment has asked through another one's proxy."""
    proxy, host = provider.proxy, provider.url.host
    if proxy is None or not is_this_machine(host) or is_this_machine(proxy.host):
        return
    line, path, written = _place(root, provider.name, "proxy")
    if written is None:
        message = (
            f"{host} is asked through the proxy {proxy.address}: write proxy: none, or add it to NO_PROXY"
        )
        yield Finding(line, message, path)


def is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def is_anthropics(host: str) -> bool:
    return host == "anthropic.com" or host.endswith(".anthropic.com")


def is_public(host: str) -> bool:
    """Whether `host` may be outside this machine and its own network, by its name alone."""
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return "." in host.rstrip(".") and not host.rstrip(".").lower().endswith(_LOCAL)


def _impossible(rules: Rules) -> Iterator[Finding]:
    """Conditions that no request can meet."""
    for i, rule in enumerate(rules.rules):
        match, path = rule.match, f"$.rules[{i}].match"
        over, under = match.tokens_over, match.tokens_under
        if over is not None and under is not None and under - over < 2:
            message = f"no request has more than {over} and fewer than {under} tokens"
            yield Finding(rule.line, f"this rule is never reached: {message}", path)
        for glob in match.client:
            if not any(glob.matches(name) for name in rules.clients):
                yield Finding(rule.line, f"no client is called {quoted(glob.text)}", f"{path}.client")


def _twice(rules: Rules) -> Iterator[Finding]:
    """Rules that have the same name in the log and in headers."""
    seen: dict[str, int] = {}
    for i, rule in enumerate(rules.rules):
        if (first := seen.setdefault(rule.label, rule.line)) != rule.line:
            message = f"the rule on line {first} has the name {quoted(rule.label)} too"
            yield Finding(rule.line, message, f"$.rules[{i}].name")


def findings(rules: Rules) -> list[Finding]:
    """The findings of `check` besides `warnings`."""
    return sorted([*never_reached(rules.rules), *_slow(rules)])


def on_a_plan(rules: Rules, root: document.Mapping) -> Iterator[Finding]:
    """Providers that are asked by a person's plan. `root` is the document of the rules."""
    for provider in rules.providers.values():
        if provider.auth == "codex-login":
            line, path, _ = _place(root, provider.name, "auth")
            message = "the terms of the ChatGPT plan are yours to keep: one user, this machine"
            yield Finding(line, message, path)


def _slow(rules: Rules) -> Iterator[Finding]:
    """Regular expressions that can exceed their time limit on a long text, and then count as not found."""
    for i, rule in enumerate(rules.rules):
        for key in ("system", "prompt"):
            for pattern in getattr(rule.match, key):
                if pattern.is_slow():
                    message = (
                        f"/{pattern.text}/ cannot be searched in linear time: where a text takes longer than "
                        f"{LIMIT * 1000:g} ms it counts as not found"
                    )
                    yield Finding(rule.line, message, f"$.rules[{i}].match.{key}")


def falling_through(rules: Rules) -> Iterator[str]:
    """Tiers that no rule matches by the model alone. Without rules, all requests fall through on purpose."""
    for tier, model in DEFAULT_MODELS.items():
        if rules.rules and not any(by_model_alone(rule.match, tier, model) for rule in rules.rules):
            yield f'tier "{tier}" falls through to the upstream'


def by_model_alone(match: Match, tier: str, model: str) -> bool:
    """True if every request for this model meets `match`."""
    asks_more = replace(match, model=(), tier=()) != Match()
    by_model = not match.model or any(glob.matches(model) for glob in match.model)
    return not asks_more and by_model and (not match.tier or tier in match.tier)


def never_reached(rules: Sequence[Rule]) -> Iterator[Finding]:
    """Rules and globs that are never reached. Stops after a rule that matches everything."""
    for j, rule in enumerate(rules):
        earlier = rules[:j]
        if earlier and takes(earlier[-1].match, Match()):
            return
        parts = [replace(rule.match, model=(glob,)) for glob in rule.match.model] or [rule.match]
        takers = [next((one for one in earlier if takes(one.match, part)), None) for part in parts]
        path = f"$.rules[{j}]"
        if all(takers):
            names = ", ".join(dict.fromkeys(_called(taker) for taker in takers if taker))
            yield Finding(rule.line, f"this rule is never reached: {names} takes its requests first", path)
            continue
        for glob, taker in zip(rule.match.model, takers, strict=False):
            if taker:
                message = f"{quoted(glob.text)} is never reached here: {_called(taker)} takes it first"
                yield Finding(rule.line, message, f"{path}.match")
        yield from _repeated(rule, path)


def takes(earlier: Match, later: Match) -> bool:
    """Whether every request that matches `later`, which has at most one model glob, also matches
    `earlier`."""
    for field in Match.__struct_fields__:
        asked, given = getattr(earlier, field), getattr(later, field)
        if asked in ((), None):
            continue
        if field == "model":
            implied = _by_model(asked, later)
        elif field == "tier":
            implied = _by_tier(asked, later)
        elif given in ((), None):
            implied = False
        else:
            implied = _IMPLIES.get(field, _same)(asked, given)
        if not implied:
            return False
    return True


def covers(wide: str, narrow: str) -> bool:
    """Whether `wide` certainly matches every text that the glob `narrow` matches."""
    tokens = _tokens(narrow)
    places = {0}  # how many tokens of `narrow` may be matched so far
    for token in _tokens(wide):
        if token.startswith("*"):
            places = set(range(min(places), len(tokens) + 1))
        else:
            places = {i + 1 for i in places if i < len(tokens) and _covers_one(token, tokens[i])}
        if not places:
            return False
    return len(tokens) in places


@cache
def _tokens(glob: str) -> tuple[str, ...]:
    return tuple(token.lower() for token in _TOKEN.findall(glob))


def _covers_one(wide: str, narrow: str) -> bool:
    if narrow.startswith("*"):
        return False
    if wide in ("?", narrow):
        return True
    return len(wide) > 1 and len(narrow) == 1 and narrow != "?" and fnmatch.fnmatchcase(narrow, wide)


def _by_model(asked: Sequence[Glob], later: Match) -> bool:
    """By the model globs, or because every model of a tier contains the tier's name."""
    if any(covers(glob.text, "*") for glob in asked):
        return True
    given = [glob.text for glob in later.model] or [f"*{tier}*" for tier in later.tier]
    return bool(given) and all(any(covers(glob.text, one) for glob in asked) for one in given)


def _by_tier(asked: Sequence[str], later: Match) -> bool:
    if later.tier:
        return set(later.tier) <= set(asked)
    tiers = [tier_of(glob.text) for glob in later.model]
    return bool(tiers) and all(tier in asked for tier in tiers)


def _same(asked: Any, given: Any) -> bool:
    return bool(asked == given)


def _by_globs(asked: Sequence[Glob], given: Sequence[Glob]) -> bool:
    return all(any(covers(wide.text, narrow.text) for wide in asked) for narrow in given)


def _by_headers(
    asked: Sequence[tuple[str, Sequence[Glob]]], given: Sequence[tuple[str, Sequence[Glob]]]
) -> bool:
    globs = dict(given)
    return all(name in globs and _by_globs(wanted, globs[name]) for name, wanted in asked)


_IMPLIES: dict[str, Callable[[Any, Any], bool]] = {
    "path": _by_globs,
    "client": _by_globs,
    "project": _by_globs,
    "request_class": lambda asked, given: set(given) <= set(asked),
    "tools": _by_globs,
    "header": _by_headers,
    "port": lambda asked, given: set(given) <= set(asked),
    "tokens_over": lambda asked, given: given >= asked,
    "tokens_under": lambda asked, given: given <= asked,
    "system": lambda asked, given: set(given) <= set(asked),
    "prompt": lambda asked, given: set(given) <= set(asked),
    "quota": lambda asked, given: set(asked) <= set(given),
}
"""Conditions where a different value can imply the earlier one: functions of (earlier, later) value."""


def _called(rule: Rule) -> str:
    return f"rule {rule.label} on line {rule.line}"


def _repeated(rule: Rule, path: str) -> Iterator[Finding]:
    texts = [glob.text.lower() for glob in rule.match.model]
    for text in dict.fromkeys(text for text in texts if texts.count(text) > 1):
        yield Finding(rule.line, f"{quoted(text)} stands in this rule twice", f"{path}.match")


def _has(root: document.Mapping, provider: str, key: str) -> bool:
    return _place(root, provider, key)[2] is not None


def _place(root: document.Mapping, provider: str, key: str) -> tuple[int, str, Node | None]:
    """Line, path and value of a provider's key; line and path of the provider if the key is missing."""
    path = step("$.providers", provider)
    providers = root.get("providers")
    written = providers.items[provider] if isinstance(providers, document.Mapping) else root
    if isinstance(written, document.Mapping) and (value := written.get(key)) is not None:
        return written.lines[key], step(path, key), value
    return written.line, path, None
