"""How hard a model is to think (translation.md, 4)."""

import msgspec

from signalbox.messages.unsupported_fields import EFFORTS
from signalbox.translate.dialects import Dialect, matches
from signalbox.translate.shapes import Object, as_object, as_text

_ORDER = EFFORTS
OFF = EFFORTS[0]
_SHOWN = ("enabled", "adaptive")
_LITTLE, _SOME = 4_000, 16_000
"""Tokens of a budget below which the effort is low, and medium."""
_BY_DEFAULT = "high"
"""Anthropic's own: https://docs.claude.com/en/docs/build-with-claude/effort"""


class Thought(msgspec.Struct, frozen=True):
    """What is asked of the model."""

    fields: Object
    """Of the chat body."""
    is_off: bool
    """Whether the model is told not to think."""
    is_shown: bool
    """Whether the client wants to see it."""


def thought(thinking: object, output_config: object, dialect: Dialect, model: str, *, tools: bool) -> Thought:
    """From the fields of a Messages body. `tools`: whether any is offered."""
    told = as_object(thinking)
    word = _asked(told, as_text(as_object(output_config).get("effort")))
    if tools and matches(model, dialect.tools_without_effort):
        word = OFF
    is_off = word == OFF and not matches(model, dialect.unstoppable)
    return Thought(_fields(word, dialect, model), is_off, told.get("type") in _SHOWN)


def _asked(thinking: Object, effort: str) -> str:
    """One of `_ORDER`; empty where the client leaves it to the model."""
    kind = thinking.get("type")
    if kind in ("disabled", "between_tools"):
        return OFF
    if effort in _ORDER:
        return effort
    budget = thinking.get("budget_tokens")
    if kind == "enabled" and isinstance(budget, int | float):
        return "low" if budget < _LITTLE else "medium" if budget < _SOME else "high"
    return _BY_DEFAULT if kind in _SHOWN else ""


def _fields(word: str, dialect: Dialect, model: str) -> Object:
    if not word:
        return {}
    words = next((row.words for row in dialect.efforts if matches(model, row.models)), ())
    spelled = _nearest(word, words)
    if dialect.switch and matches(model, dialect.switched):
        if word == OFF:
            return {} if matches(model, dialect.unstoppable) else {"thinking": {"type": "disabled"}}
        return {"thinking": {"type": dialect.switch, **({"effort": spelled} if spelled else {})}}
    if not spelled:
        return {}
    return {dialect.effort_field: {"effort": spelled} if dialect.effort_field == "reasoning" else spelled}


def _nearest(word: str, words: tuple[str, ...]) -> str:
    """The same or the next lower one, else the lowest; never off where thinking is asked for."""
    if word == OFF:
        return words[0] if words else ""
    known = [one for one in words if one != OFF]
    lower = [one for one in known if _ORDER.index(one) <= _ORDER.index(word)]
    return lower[-1] if lower else known[0] if known else ""
