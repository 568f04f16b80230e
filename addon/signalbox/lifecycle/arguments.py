"""What `signalbox run` makes of its arguments: those that are mitmproxy's, and the listeners."""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from signalbox.config.fields import Listen
from signalbox.config.load import RulesError, listeners, read_text
from signalbox.lifecycle.spec import DEFAULT_LISTENER, reverse
from signalbox.state.good_rules import GoodRules

_RULES = re.compile(r"[^-=][^=]*\.ya?ml", re.IGNORECASE)
_JUST = re.compile(r"(port|web_port)=(\d*)|(\d+)")
_ALIKE = 0.85
"""Likeness from which an option that is not ours is taken for a slip; mitmproxy has `--listen-host` beside
our `--listen`."""


class ArgumentError(ValueError):
    """Arguments that are certainly a mistake; the text says what to write instead."""


class Given(NamedTuple):
    """What further arguments say."""

    rules: str | None
    state: str | None
    rest: tuple[str, ...]
    """For mitmproxy."""


def further(arguments: Sequence[str], own: Sequence[str]) -> Given:
    """Sorts the arguments that are no options of `run`. `own` are its options.

    A rules file may stand for itself; `--set router_rules=` and `router_state=` are known too, since
    mitmproxy would refuse them if they were given twice. Raises ArgumentError: mitmproxy itself takes any
    other word as a filter of flows.
    """
    rest: list[str] = []
    found: dict[str, list[str]] = {"router_rules": [], "router_state": []}
    words = list(arguments)
    while words:
        word = words.pop(0)
        given = [word, words.pop(0)] if word == "--set" and words else [word]
        name, _, value = given[-1].removeprefix("--set=").partition("=")
        is_value = bool(rest) and rest[-1].startswith("-")
        if word.startswith("--set") and name in found:
            found[name].append(value)
        elif _RULES.fullmatch(word):
            found["router_rules"].append(word)
        elif (meant := _JUST.fullmatch(word)) and not is_value:
            raise ArgumentError(_for_just(word, meant[1] or "port", meant[2] or meant[3] or "8090"))
        elif similar := difflib.get_close_matches(word.partition("=")[0], own, 1, _ALIKE):
            raise ArgumentError(f"there is no option {word}, did you mean {similar[0]}?")
        else:
            rest += given
    for option, paths in found.items():
        if len(paths) > 1:
            what = "rules file" if option == "router_rules" else "state folder"
            raise ArgumentError(f"one {what} at a time: {' and '.join(paths)} are given")
    rules, state = (next(iter(paths), None) for paths in found.values())
    return Given(rules, state, tuple(rest))


def _for_just(word: str, variable: str, number: str) -> str:
    option = f"--listen 127.0.0.1:{number}" if variable == "port" else f"--web-port {number}"
    return f"{word} is no argument of run: write {option}, or just {variable}={number} run"


def modes(given: Sequence[Listen], rules: Path, state: Path, environ: Mapping[str, str]) -> tuple[str, ...]:
    """The listeners as modes of mitmproxy: those given, else those of `listen` in the rules or, where these
    cannot be read, in the rules that were last good; else 127.0.0.1:8082."""
    if given:
        return tuple(map(reverse, given))
    try:
        found = listeners(read_text(rules), rules, environ)
    except RulesError:
        try:
            found = listeners(GoodRules(state, rules).read() or "", rules, environ)
        except RulesError:
            found = {}
    return tuple(map(reverse, found.values() or [DEFAULT_LISTENER]))
