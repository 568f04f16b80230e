"""The arguments of one tool call, a JSON object in text, as they come in (translation.md, 7).

What can be told to be harmless is mended: raw control characters in strings, what follows the object,
brackets that are not closed, an object within a string. A string that was cut in the middle never is: half
a command must not run.
"""

import json
import re
from typing import Any, NoReturn

_STRING = re.compile(r'(?:[^"\\]++|\\.)*+', re.DOTALL)
"""Up to its closing quote, or a backslash that is the last character so far."""
_BETWEEN = re.compile(r'[^"{}\[\]]*+')
_CONTROL = re.compile(r"[\x00-\x1f]")
_CLOSES = {"{": "}", "[": "]"}
_NOTHING = ("", "null", '""', "[]")
"""What stands for no arguments; the last is PHP's, whose empty maps and lists are one."""
_NOTHING_YET = re.compile(r'\s*+(?:\{\s*+\}?|null|""|\[\])?\s*+\Z')
_MOST_SPACE = 500
"""White space in a row between two tokens; more of it never ends (openai-chat.md, 3, Copilot)."""


class Arguments:
    def __init__(self) -> None:
        self.complete = False
        """Whether the object has ended."""
        self.endless = False
        """Whether nothing but white space comes any more."""
        self._pieces: list[str] = []
        self._open: list[str] = []
        """The brackets that are to close, outermost first."""
        self._in_string = False
        self._escaped = False
        self._strings: list[tuple[int, int]] = []
        """Where the strings of the last fragment stood in it."""
        self._space = 0
        self._size = 0
        self._first = ""

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    @property
    def is_object(self) -> bool:
        return self._first == "{"

    @property
    def begun(self) -> bool:
        return bool(self._first)

    @property
    def is_placeholder(self) -> bool:
        """Whether nothing is in them yet: an empty object may stand for those that are still to come."""
        return self._size <= 2 * _MOST_SPACE and _NOTHING_YET.match(self.text) is not None

    def feed(self, text: str) -> tuple[str, str]:
        """What of it belongs to the object, mended; and what comes after, from the `{` of another one on."""
        if self.complete:
            return "", _another(text)
        if self.begun and not self.is_object and text.lstrip()[:1] == "{" and self.is_placeholder:
            self._pieces.clear()
            self._size, self._first = 0, ""
        if not self._first:
            begun = text.lstrip()
            self._count_space(text[: len(text) - len(begun)])
            text, self._first = begun, begun[:1]
        if not self.is_object:
            self._keep(text)
            return "", ""
        end = self._scan(text)
        own, rest = (text, "") if end < 0 else (text[:end], _another(text[end:]))
        own = self._mended(own)
        self._keep(own)
        return own, rest

    def _keep(self, text: str) -> None:
        self._pieces.append(text)
        self._size += len(text)

    def settled(self) -> str | None:
        """All of it, no more being to come; None where it is not a JSON object."""
        text = self.text
        if text.strip() in _NOTHING:
            return "{}"
        if self.is_object:
            if not self.complete and text.rstrip()[-1:] in ('"', "}", "]"):
                text += "".join(_CLOSES[bracket] for bracket in reversed(self._open))
            return text if isinstance(_parsed(text), dict) else None
        value = _parsed(text)
        inner = _parsed(value) if isinstance(value, str) else None
        return value if isinstance(value, str) and isinstance(inner, dict) else None

    def _scan(self, text: str) -> int:
        """Where the object ends, or -1."""
        self._strings.clear()
        at = 0
        while at < len(text):
            if self._in_string:
                at = self._string(text, at)
                continue
            end = _match_end(_BETWEEN, text, at)
            self._count_space(text[at:end])
            if end == len(text):
                break
            at, self._space = end + 1, 0
            if text[end] == '"':
                self._in_string = True
            elif text[end] in _CLOSES:
                self._open.append(text[end])
            elif self._open:
                self._open.pop()
                if not self._open:
                    self.complete = True
                    return at
        return -1

    def _string(self, text: str, at: int) -> int:
        """Reads on in a string; where it goes on after."""
        start = at
        if self._escaped:
            self._escaped = False
            at += 1
        end = _match_end(_STRING, text, at)
        self._strings.append((start, end))
        if end == len(text):
            return end
        self._escaped = text[end] == "\\"
        self._in_string = self._escaped
        return end + 1

    def _count_space(self, between: str) -> None:
        blank = len(between) - len(between.rstrip())
        self._space = blank + (self._space if blank == len(between) else 0)
        self.endless = self.endless or self._space > _MOST_SPACE

    def _mended(self, text: str) -> str:
        """With the control characters in its strings escaped."""
        pieces: list[str] = []
        at = 0
        for start, end in self._strings:
            pieces += text[at:start], _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text[start:end])
            at = end
        return "".join((*pieces, text[at:]))


def _match_end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found else at


def _another(text: str) -> str:
    """Anything else than an object after the first one means nothing."""
    text = text.lstrip()
    return text if text.startswith("{") else ""


def _parsed(text: str) -> Any:
    """None where it is not JSON."""
    try:
        return json.loads(text, parse_constant=_refused)
    except (ValueError, RecursionError):
        return None


def _refused(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
