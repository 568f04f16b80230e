"""Errors of third parties that say a prompt is too long, in the words on which Claude Code compacts.

It looks for `prompt is too long`, and takes nothing from the others' wordings:
https://docs.claude.com/en/docs/claude-code/errors
"""

import re

from .errors import error_body, read_error

_STATUSES = (200, 400, 413, 422, 429, 500)
"""200 where the body, or an event of the stream, is an error."""
_HEAD = 64 * 1024
_READ = 4000
"""Characters of a message of any length that are looked at."""
_LINE = 300

_TYPES = frozenset(
    {"1261", "context_length_exceeded", "model_context_window_exceeded", "exceed_context_size_error"}
)
"""1261 is Z.ai's, the last llama.cpp's."""
_TOO_LONG = re.compile(
    r"prompt is too long"
    r"|context_length_exceeded|ContextWindowExceeded"
    r"|(?:reached|exceed\w*)\W+(?:\w+\W+){0,4}context (?:window|length|size)"
    r"|(?:context (?:window|length|size)|token limit)\W+(?:is\W+)?exceed"
    r"|(?:maximum|longer than the model's) context length"
    r"|exceed\w* (?:the )?(?:\w+ )?(?:token limit|max(?:imum)? (?:number of )?tokens|maximum allowed length)"
    r"|(?:prompt|input) token count\b.{0,60}\bexceeds"
    r"|too many tokens in the (?:prompt|input|context)",
    re.IGNORECASE,
)
"""Anthropic, OpenAI, LiteLLM; Z.ai, MiniMax, llama.cpp; OpenAI's kin; Kimi, SGLang; Gemini."""
_OTHERWISE = re.compile(
    r"`?max_(?:completion_)?(?:output_)?tokens\b.{0,40}(?::|exceed|too large)"
    r"|input length and `?max_tokens`? exceed"
    r"|per[ -](?:minute|min|hour|day|second)\b|\bTPM\b|\bTPD\b|\brate limit",
    re.IGNORECASE,
)
"""For an answer that is too long (Claude Code asks for a shorter one), and for too many tokens in a time."""

_NUMBER = r"(?<![\w@./-])(\d[\d,]*\d)(?![\w@/-]|\.\d)"
"""Not the date or the version of a model."""
_ANY_NUMBER = re.compile(_NUMBER)
_PAIR = re.compile(rf"{_NUMBER} tokens > {_NUMBER}")
_MAXIMUM = re.compile(
    rf"(?:maximum|limit|context (?:length|window|size)|>).{{0,60}}?{_NUMBER}", re.IGNORECASE
)


def in_anthropics_words(status: int, error: bytes) -> bytes | None:
    """The body of the 400 to say instead; None where this is no such error, or already in those words.

    For the decoded errors of providers that are not Anthropic itself, and the data of their error events.
    """
    told = read_error(error[:_HEAD])
    if status not in _STATUSES or told is None:
        return None
    kind, message = told
    if status == 400 and kind == "invalid_request_error" and message.lower().startswith("prompt is too long"):
        return None
    said = too_long(message, kind)
    return error_body(400, said) if said else None


def too_long(message: str, *kinds: str) -> str:
    """The message that says so in those words, of an error of one of these types and codes; empty where the
    prompt is not too long."""
    message = message[:_READ]
    is_told = _TOO_LONG.search(message) or not _TYPES.isdisjoint(kind.lower() for kind in kinds)
    if not is_told or _OTHERWISE.search(message):
        return ""
    return f"prompt is too long: {_sizes(message) or ' '.join(message.split())[:_LINE]}"


def _sizes(message: str) -> str:
    """`A tokens > B maximum`, where both numbers are told."""
    if pair := _PAIR.search(message):
        asked, limit = map(_read, pair.groups())
    else:
        limit = next((_read(found[1]) for found in _MAXIMUM.finditer(message)), 0)
        asked = max(map(_read, _ANY_NUMBER.findall(message)), default=0)
    return f"{asked} tokens > {limit} maximum" if asked > limit > 0 else ""


def _read(number: str) -> int:
    return int(number.replace(",", ""))
