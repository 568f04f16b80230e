"""What the body of an error says, in whichever shape: names, a message, a delay."""

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import msgspec

from signalbox.messages.errors import ERROR_TYPES, error_of, shows_error
from signalbox.routing.retry_after import duration

HEAD = 64 * 1024
"""Bytes of a body that are read."""

_STATUS = {name: status for status, name in ERROR_TYPES.items()} | {
    "rate_limit_exceeded": 429,
    "rate_limit_reached_error": 429,
    "deadline_exceeded": 504,
}
"""Anthropic's types; OpenAI's, Kimi's and Google's codes, for errors that come with a 200."""
_NAMES = ("type", "code", "status", "error_code", "error_type")
_MINIMAX_CODE = re.compile(r"\(([12]\d{3})\)\s*\Z", re.ASCII)
_TITLE = re.compile(r"<title[^<>]*>([^<]*)", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]*>")
_SECRET = re.compile(r"\bbearer\s+[^\s\"']+|sk-[^\s\"',]*|[\w.+=-]{36,}|\b[0-9a-f]{32,}", re.IGNORECASE)
_QUOTED = re.compile(r"(?<![\w\\])b?(?P<mark>\\*[\"'`])(?P<said>.*?)(?:(?<!\\)(?P=mark)(?!\w)|\Z)", re.DOTALL)
_KEY = re.compile(
    r"\b(?:(?P<says>msg|message)|input|input_value|ctx|content|text|prompt|value|arguments)\\{0,8}[\"']?\s{0,9}[:=]\s{0,9}"
)
_INPUT_VALUE = re.compile(r"\binput(_value)?=(?:.(?!, input_type=))*.", re.DOTALL)
"""pydantic: `[type=string_type, input_value=['what was sent'], input_type=list]`."""
_TOKEN = re.compile(r'"(?:[^"\\]|\\.?)*+(?:"|\Z)|[{}\[\],]', re.DOTALL)
_SAYS = ("message", "msg", "detail", "error", "reason")
_DEEPEST = 5
_NESTED = 100
_MOST = 10
"""Faults of a list that are told, and parts of a place."""
_LINE = 200
_READ = 4000
"""Characters of a text of any length that are looked at."""


def one_line(text: str) -> str:
    """Text for people: one line of at most 200 characters, without keys, tokens, and quoted input."""
    printable = "".join(char if char.isprintable() else " " for char in text[:_READ])
    line = _unquoted(_SECRET.sub("***", " ".join(printable.split())))
    return line if len(line) <= _LINE else line[: _LINE - 1] + "…"


def _unquoted(text: str) -> str:
    """With `…` for what an error quotes of a prompt: the input that it names, and any quotation of more than
    one word. Names of fields, models and values stay."""
    text = _INPUT_VALUE.sub(r"input\1=…", text)

    keys = {found.end(): found["says"] is not None for found in _KEY.finditer(text)}
    input_from = next((end for end, says in keys.items() if not says), len(text))

    def shown(found: re.Match[str]) -> str:
        is_message = keys.get(found.start())
        is_told = found.start() < input_from if is_message else len(found["said"].split()) < 2
        return found[0] if is_told and is_message is not False else f"{found['mark']}…{found['mark']}"

    return _QUOTED.sub(shown, text)


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
        """For people; never what the error quotes of the request, which is a prompt."""
        said = _decoded(self.message) if self.message[:1] in ("[", "{") else None
        message = self.message if said is None else _text(said)
        return one_line(": ".join(filter(None, (*self.types[:1], message))))


def read(body: bytes) -> Report:
    """What a body says: Anthropic's shape, OpenAI's, Google's arrays, Z.ai's and MiniMax's codes, flat
    objects, a bare text, an HTML page (its title), or nothing. Never raises."""
    text = body[:HEAD].decode("utf-8", "replace")
    told = _decoded(text)
    if isinstance(told, list):
        told = next(iter(told), None)
    if isinstance(told, dict):
        return _of_object(told)
    return Report(message=_plain(text), is_error=False)


def _decoded(text: str) -> object:
    """The JSON value, where it was cut short as far as it goes; None where it is too deep, or no JSON."""
    with suppress(msgspec.MsgspecError, ValueError, RecursionError):
        return msgspec.json.decode(text)
    with suppress(msgspec.MsgspecError, ValueError, RecursionError):
        return msgspec.json.decode(_closed(text))
    return None


def _closed(text: str) -> str:
    """JSON that was cut short, up to its last whole member, with its brackets closed."""
    closing, ends = "", (0, "")
    for found in _TOKEN.finditer(text):
        if len(closing) > _NESTED:
            break
        match found[0][0]:
            case "{":
                closing = "}" + closing
            case "[":
                closing = "]" + closing
            case ",":
                ends = found.start(), closing
            case "}" | "]":
                closing = closing[1:]
                ends = found.end(), closing
    return text[: ends[0]] + ends[1]


def _of_object(told: dict[str, Any]) -> Report:
    error = error_of(told)
    source, message = (told, _text(told)) if error is None else (error, _text(error["message"]))
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
    return _STATUS.get(name.lower())


def _text(value: object, depth: int = 0) -> str:
    """What a value says: of objects, as FastAPI lists its faults, the messages and their places alone."""
    if value is None or depth > _DEEPEST:
        return ""
    if isinstance(value, list):
        return "; ".join(filter(None, (_text(one, depth + 1) for one in value[:_MOST])))[:_READ]
    if isinstance(value, dict):
        said = next(filter(None, (_text(value.get(name), depth + 1) for name in _SAYS)), "")
        place = value.get("loc")
        where = ".".join(map(str, place[:_MOST])) if said and isinstance(place, list) else ""
        return f"{said} (at {where})" if where else said
    return str(value)[:_READ]


def _plain(text: str) -> str:
    """A page's title, else its words."""
    head = text[:_READ]
    title = _TITLE.search(head)
    return title[1] if title else _TAG.sub(" ", head)
