"""Faults in what the user wrote: where, what, and what may have been meant."""

import difflib
from collections.abc import Iterable

import msgspec


class Fault(msgspec.Struct, frozen=True, order=True):
    """One fault (or warning). `line` counts from 1, `path` reads like `$.rules[0].to`."""

    line: int
    message: str
    path: str = "$"

    def within(self, file: str) -> str:
        """One line for people: `rules.yaml:12: unknown key "modle" (at $.rules[0])`."""
        return f"{file}:{self.line}: {self.message} (at {self.path})"


class MisfitError(ValueError):
    """Raised by a value that cannot stand as written; `keys` lead from it to the part at fault."""

    def __init__(self, message: str, *keys: str | int) -> None:
        super().__init__(message)
        self.keys = keys


def shown(text: str) -> str:
    """`text` in quotes, on one line and not too long."""
    short = text if len(text) <= 60 else text[:57] + "..."
    return '"' + "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in short) + '"'


def nearest(word: str, known: Iterable[str]) -> str | None:
    return next(iter(difflib.get_close_matches(word, list(known), n=1)), None)


def unknown(what: str, word: str, known: Iterable[str]) -> str:
    """`unknown key "modle", did you mean "model"?`"""
    meant = nearest(word, known)
    return f"unknown {what} {shown(word)}" + (f", did you mean {shown(meant)}?" if meant else "")


def step(path: str, key: str | int) -> str:
    """The path one step further: `$.rules`, `$.rules[0]`, `$.rename["*haiku*"]`."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}" if key.replace("-", "_").isidentifier() else f"{path}[{shown(key)}]"
