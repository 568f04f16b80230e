r"""Regular expressions of schemas: which of them a provider can be sent.

Providers check `pattern` with engines that disagree: OpenAI and others with Python's `re`, some with RE2,
Rust's or JavaScript's (with and without its `u` flag). What one of them cannot read is a 400 for the whole
request, whether or not the tool is ever called: https://github.com/anthropics/claude-code/issues/93029
(`\p{Cc}` in a built-in tool of Claude Code), https://github.com/raine/claude-code-proxy/issues/142.

Engines that turn schemas into grammars know less: the pattern has to be anchored at both ends and may hold no
`\d`, `\S` and the like (https://github.com/lmstudio-ai/lmstudio-bug-tracker/issues/2168), and a negated class
or a dot would let the quote through that ends the string.

Both are lists of what is allowed, so that a construct nobody thought of is left out too.
"""

import re

_LONGEST = 2000
"""Characters of a pattern that is looked at."""

_COUNT = r"(?:\d{1,3}|1000)"
"""RE2 refuses more: https://github.com/google/re2/wiki/Syntax"""
_TIMES = rf"[*+?]|\{{{_COUNT}(?:,{_COUNT}?)?\}}"

_ESCAPED = r"\\[dDsSwWnrtfv^$\\.*+?()\[\]{}|/]"
_IN_CLASS = r"(?:[^\\\[\]^&~|\x00-\x1f-]|&(?!&)|~(?!~)|\|(?!\|)|\\[nrtfv^$\\.*+?()\[\]{}|/-])"
"""One character. `[` and doubled `&`, `~`, `|` and `-` are operators in Rust, Java and JavaScript (`v`)."""
_CLASS = rf"\[\^?-?(?:{_IN_CLASS}(?:-{_IN_CLASS})?|\\[dDsSwW])*-?\]"
_REPEATED = rf"(?:[^\\^$.|?*+()\[\]{{}}\x00-\x1f]|[.)]|{_ESCAPED}|{_CLASS})(?:(?:{_TIMES})\??)?"

PORTABLE = re.compile(rf"(?:{_REPEATED}|\\[bB]|[\^$|]|\(\?:|\((?!\?))*+")
"""Read alike by all of them."""

_LITERAL = r"[^\\\"^$.|?*+()\[\]{}\x00-\x1f]|\\[.^$*+?()\[\]{}|]"
_LISTED = r"\[-?(?:[^\\\"\[\]^\x00-\x1f-](?:-[^\\\"\[\]^\x00-\x1f-])?)+-?\]"
_PIECE = rf"(?:{_LITERAL}|{_LISTED})(?:{_TIMES})?"

ANCHORED = re.compile(rf"\^(?:{_PIECE}|\((?:{_PIECE}|\|)++\)(?:{_TIMES})?)*+\$")
"""Read by engines that make grammars too."""


def is_readable(pattern: str, known: re.Pattern[str]) -> bool:
    """Whether `pattern` is one of those that `known` (PORTABLE or ANCHORED) describes, and well-formed."""
    if len(pattern) > _LONGEST or not known.fullmatch(pattern):
        return False
    try:
        re.compile(pattern)  # brackets in pairs, bounds and ranges in order
    except (re.error, RecursionError):
        return False
    return True
