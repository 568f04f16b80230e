"""Rules, and globs within rules, that no request reaches because an earlier rule takes all of them.

Only what is certain is told: of two conditions one must imply the other by what is written in them.
"""

import fnmatch
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

from msgspec.structs import replace

from signalbox.config.faults import Fault, shown
from signalbox.config.rules import Glob, Match, Rule
from signalbox.routing.facts import tier_of

_TOKEN = re.compile(r"\[!?\]?[^\]]*\]|\*+|.", re.DOTALL)


def never_reached(rules: Sequence[Rule]) -> Iterator[Fault]:
    """A warning for each, with the line of the rule. Stops at a rule that takes everything."""
    for j, rule in enumerate(rules):
        earlier = rules[:j]
        if earlier and takes(earlier[-1].match, Match()):
            return
        parts = [replace(rule.match, model=(glob,)) for glob in rule.match.model] or [rule.match]
        takers = [next((one for one in earlier if takes(one.match, part)), None) for part in parts]
        path = f"$.rules[{j}]"
        if all(takers):
            names = ", ".join(dict.fromkeys(_called(taker) for taker in takers if taker))
            yield Fault(rule.line, f"this rule is never reached: {names} takes its requests first", path)
            continue
        for glob, taker in zip(rule.match.model, takers, strict=False):
            if taker:
                message = f"{shown(glob.text)} is never reached here: {_called(taker)} takes it first"
                yield Fault(rule.line, message, f"{path}.match")
        yield from _repeated(rule, path)


def takes(earlier: Match, later: Match) -> bool:
    """Whether every request that meets `later`, which has one glob on the model at most, meets `earlier`."""
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
    """Whether every text that the glob `narrow` matches is matched by `wide`, as far as they show it."""
    tokens = _tokens(narrow)
    places = {0}  # how much of `narrow` may be behind us, token by token of `wide`
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
    """By its globs on the model, or since a tier's name stands in every model of the tier."""
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
    "tools": _by_globs,
    "header": _by_headers,
    "port": lambda asked, given: set(given) <= set(asked),
    "tokens_over": lambda asked, given: given >= asked,
    "tokens_under": lambda asked, given: given <= asked,
    "system": lambda asked, given: set(given) <= set(asked),
    "prompt": lambda asked, given: set(given) <= set(asked),
    "quota": lambda asked, given: set(asked) <= set(given),
}
"""For conditions that need not be the same to imply each other: (what is asked, what is given)."""


def _called(rule: Rule) -> str:
    return f"rule {rule.label} on line {rule.line}"


def _repeated(rule: Rule, path: str) -> Iterator[Fault]:
    texts = [glob.text.lower() for glob in rule.match.model]
    for text in dict.fromkeys(text for text in texts if texts.count(text) > 1):
        yield Fault(rule.line, f"{shown(text)} stands in this rule twice", f"{path}.match")
