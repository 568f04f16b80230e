"""Learns the dialect of a provider of chat completions from its 400 errors.

An error is read into names, stored like those of unsupported fields (`anthropic.unsupported_fields`); these
change the row of the dialect table for the next request.
"""

import re
from collections.abc import Collection, Iterator

from msgspec.structs import replace

from signalbox.anthropic.errors import read_error
from signalbox.anthropic.json_edit import Body
from signalbox.anthropic.unsupported_fields import EFFORTS, STATUSES, refuses_images
from signalbox.openai.dialects import ALL, Dialect, Efforts, matches_any

_OFF = EFFORTS[0]
_SWITCHED_OFF = "thinking.type=disabled"
_TOOLS_WITH_EFFORT = "tools with reasoning_effort"
_NO_REASONING = "messages without reasoning_content"
_MAX_TOKENS, _COMPLETION_TOKENS = "max_tokens", "max_completion_tokens"
_TOOL_CHOICE = "tool_choice"
REFUSED_CHOICE = re.compile(
    r"tool_choice\b.{0,80}(?:not support|unsupported|incompatible|not allowed)"
    r"|not support.{0,40}tool_choice",
    re.IGNORECASE,
)
"""Says that a tool cannot be forced."""
_IMAGES = "messages.content.type=image_url"
_EFFORT_FIELDS = {"reasoning_effort": "reasoning_effort", "reasoning": "reasoning.effort"}

_SIGNS = (
    # an effort beside tools, or none where only `none` is taken (openai-chat.md, 1)
    (
        re.compile(r"tools with .?reasoning_effort.? are not supported", re.IGNORECASE),
        "tools",
        _TOOLS_WITH_EFFORT,
    ),
    # DeepSeek and Kimi, also behind gateways (translation.md, 4)
    (
        re.compile(r"reasoning_content\b.{0,60}(?:must be passed back|is missing)", re.IGNORECASE),
        "messages",
        _NO_REASONING,
    ),
    (re.compile(r"max_tokens\b.{0,120}max_completion_tokens", re.IGNORECASE), _MAX_TOKENS, _MAX_TOKENS),
    (
        re.compile(r"max_completion_tokens\b.{0,120}max_tokens", re.IGNORECASE),
        _COMPLETION_TOKENS,
        _COMPLETION_TOKENS,
    ),
    (
        REFUSED_CHOICE,
        _TOOL_CHOICE,
        _TOOL_CHOICE,
    ),
)
"""A wording, the field that the request must have, and the name that is stored."""


def refusals(status: int, error: bytes, request: Body) -> Iterator[str]:
    """The names that the error to a chat request teaches. `error` is the decoded body."""
    if status in STATUSES:
        text = read_error(error).text
        yield from (name for sign, field, name in _SIGNS if field in request and sign.search(text))
    if refuses_images(status, error) and b'"image_url"' in request.readable:
        yield _IMAGES


def taught(dialect: Dialect, model: str, refused: Collection[str]) -> Dialect:
    """The dialect changed by the names stored for this model."""
    if not refused:
        return dialect
    words = next((row.words for row in dialect.efforts if matches_any(model, row.models)), ())
    has_switch = bool(dialect.switch) and matches_any(model, dialect.switched)
    field = "thinking.effort" if has_switch else _EFFORT_FIELDS[dialect.effort_field]
    left = tuple(word for word in words if f"{field}={word}" not in refused)
    changed = replace(dialect, efforts=(Efforts(ALL, left),))
    if _SWITCHED_OFF in refused:
        changed = replace(changed, unstoppable=ALL)
    if _TOOLS_WITH_EFFORT in refused:
        others = tuple(word for word in left if word != _OFF)
        changed = replace(changed, efforts=(Efforts(ALL, (_OFF, *others)),), tools_without_effort=ALL)
    if _NO_REASONING in refused:
        changed = replace(changed, replay="every", placeholder=" ")
    if _MAX_TOKENS in refused or _COMPLETION_TOKENS in refused:
        changed = replace(changed, completion_tokens=ALL if _MAX_TOKENS in refused else ())
    if _TOOL_CHOICE in refused:
        changed = replace(changed, forced="", no_tool=False)
    if _IMAGES in refused:
        changed = replace(changed, images=(), pdf="" if dialect.pdf == "image_url" else dialect.pdf)
    return changed
