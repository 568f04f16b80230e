"""What the body of an error says, in whichever shape: names, a message, a delay."""

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from signalbox.messages.errors import ERROR_TYPES, error_of, shows_error
from signalbox.routing.resets import duration

HEAD = 64 * 1024
"""Bytes of a body that are read."""

_STATUS = {name: status for status, name in ERROR_TYPES.items()}
_NAMES = ("type", "code", "status", "error_code", "error_type")
_MINIMAX_CODE = re.compile(r"\(([12]\d{3})\)\s*\Z", re.ASCII)
_TITLE = re.compile(r"<title[^<>]*>([^<]*)", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]*>")
_SECRET = re.compile(r"\bbearer\s+[^\s\"']+|sk-[^\s\"',]*|[\w.+=-]{36,}|\b[0-9a-f]{32,}", re.IGNORECASE)
_LINE = 200
_READ = 4000
"""Characters of a text of any length that are looked at."""


def one_line(text: str) -> str:
    """Text for people: one line of at most 200 characters, keys and tokens masked."""
    printable = "".join(char if char.isprintable() else " " for char in text[:_READ])
    line = _SECRET.sub("***", " ".join(printable.split()))
    return line if len(line) <= _LINE else line[: _LINE - 1] + "…"


class Report(msgspec.Struct, frozen=True):
    """What an error says of itself."""

    types: tuple[str, ...] = ()
    """Types and codes as written, the plainest first: `rate_limit_error`, `1308`, `RESOURCE_EXHAUSTED`."""
    message: str = ""
    delay: float | None = None
    """Seconds to wait (Google's `RetryInfo`)."""
    is_error: bool = True
    """Whether the body alone shows an error, whatever status it came with."""

    @property
    def names(self) -> tuple[str, ...]:
        """The types in lower case; MiniMax's business codes are `minimax_1008`."""
        code = _MINIMAX_CODE.search(self.message)
        return (*(name.lower() for name in self.types), *([f"minimax_{code[1]}"] if code else []))

    @property
    def status(self) -> int | None:
        """The status that it names or that belongs to its type."""
        return next(filter(None, map(_status, self.types)), None)

    @property
    def is_zai(self) -> bool:
        """Whether it has a business code of Z.ai, wherever it came through."""
        return any(re.fullmatch(r"1[0-3]\d\d", name, re.ASCII) for name in self.types)

    @property
    def detail(self) -> str:
        return one_line(": ".join(filter(None, (*self.types[:1], self.message))))


def read(body: bytes) -> Report:
    """What a body says: Anthropic's shape, OpenAI's, Google's arrays, Z.ai's and MiniMax's codes, flat
    objects, a bare text, an HTML page (its title), or nothing. Never raises."""
    text = body[:HEAD].decode("utf-8", "replace")
    try:
        told = msgspec.json.decode(text)
        if isinstance(told, list):
            told = next(iter(told), None)
        if isinstance(told, dict):
            return _of_object(told)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        pass  # cut short, too deep, or no JSON: a text like any other
    return Report(message=_plain(text), is_error=False)


def _of_object(told: dict[str, Any]) -> Report:
    error = error_of(told)
    source, message = (told, "") if error is None else (error, _text(error["message"]))
    return Report(tuple(_types(source)), message, _delay(source.get("details")), shows_error(told))


def _types(source: dict[str, Any]) -> Iterator[str]:
    for part in (source, source.get("details"), source.get("metadata")):
        if isinstance(part, dict):
            named = (_text(part.get(name)) for name in _NAMES)
            yield from (name for name in named if name not in ("", "error"))


def _delay(details: object) -> float | None:
    """https://cloud.google.com/apis/design/errors: a list of which one may be a `RetryInfo`."""
    rows = details if isinstance(details, list) else []
    told = (row.get("retryDelay") for row in rows if isinstance(row, dict))
    return next((duration(delay) for delay in told if isinstance(delay, str)), None)


def _status(name: str) -> int | None:
    if re.fullmatch(r"[45]\d\d", name, re.ASCII):
        return int(name)
    return _STATUS.get(name)


def _text(value: object) -> str:
    if value is None:
        return ""
    return value[:_READ] if isinstance(value, str) else msgspec.json.encode(value).decode()[:_READ]


def _plain(text: str) -> str:
    """A page's title, else its words."""
    head = text[:_READ]
    title = _TITLE.search(head)
    return title[1] if title else _TAG.sub(" ", head)
