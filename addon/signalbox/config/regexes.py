"""Searches the regular expressions of `system` and `prompt` in bounded time.

A backtracking engine may take minutes for a prompt of 100 KB. So a search reads only the beginning of a text,
ends after a time limit, and lets other threads run meanwhile.
"""

import logging
import time
import warnings
from functools import cache
from typing import Any

import msgspec

log = logging.getLogger("signalbox")

LONGEST = 100_000
"""Characters of a text that are searched."""
LIMIT = 0.1
"""Seconds of processor time for one search; after that the expression counts as not found."""
QUIET = 60.0
"""Seconds between two log lines about the same expression."""
PROBES = 12
"""Texts on which `is_slow` tries an expression."""

_logged: dict[str, float] = {}


class Regex(msgspec.Struct, frozen=True):
    """`text` is the expression as written, in the syntax of Python's `re`."""

    text: str

    def found_in(self, text: str) -> bool:
        """Whether it is found in the first LONGEST characters. Also False if the search takes too long."""
        found = _search(self.text, text[:LONGEST])
        if found is None:
            self._log_slow(min(len(text), LONGEST))
        return bool(found)

    def is_slow(self) -> bool:
        """Whether the search takes too long on a text of a kind that is slow for backtracking engines."""
        return any(_search(self.text, text) is None for text in _probes(self.text))

    def _log_slow(self, length: int) -> None:
        now = time.monotonic()
        if now - _logged.get(self.text, -QUIET) >= QUIET:
            _logged[self.text] = now
            log.warning(
                "the regular expression /%s/ takes longer than %g ms on a text of %d characters: not found",
                self.text,
                LIMIT * 1000,
                length,
            )


def checked_regex(written: str) -> Regex:
    """The expression. Raises ValueError whose text says what is wrong with it."""
    import regex  # slow to import: only where rules have one

    try:
        _compiled(written)
    except (regex.error, OverflowError, RecursionError) as error:
        raise ValueError(str(error)) from None
    return Regex(written)


def _search(pattern: str, text: str) -> bool | None:
    """Whether the pattern is found; None if the time limit was reached."""
    try:
        return _compiled(pattern).search(text, timeout=LIMIT, concurrent=True) is not None
    except TimeoutError:
        return None


@cache
def _compiled(text: str) -> Any:
    import regex

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # `[[` may mean something else one day
        return regex.compile(text)


def _probes(pattern: str) -> list[str]:
    """Long texts that nearly match: parts of the expression, repeated."""
    literal = "".join(char for char in pattern if char.isalnum())
    units = [" ", "\n", "x", "0", literal[:-1], literal, *literal, *literal.swapcase()]
    distinct = list(dict.fromkeys(unit for unit in units if unit))[:PROBES]
    return [(unit * (LONGEST // len(unit)))[: LONGEST - 1] + "\0" for unit in distinct]
