"""JSON that strict readers refuse, as far as it can be read for people.

JavaScript escapes lone halves of surrogate pairs (https://tc39.es/ecma262/#sec-quotejsonstring), bodies are
cut where they are stored, and answers are looked at while they come.
"""

import json
import re
from typing import Any

import msgspec

UNREADABLE = (ValueError, RecursionError)
"""What the functions raise."""
MOST_MARKS = 200_000
"""Quotes, and brackets, of a cut body above which it is not completed: that takes too long."""

_decode = msgspec.json.Decoder().decode
_STRING = re.compile(r'"(?:[^"\\]++|\\.?)*+("?)', re.DOTALL)
"""Also one that is not closed, which ends with the text."""
_PART_OF_ESCAPE = re.compile(r"(?<!\\)((?:\\\\)*+)\\(?:u[\da-fA-F]{0,3})?\Z")
_PART_OF_LITERAL = re.compile(r'[^\s"\[\]{}:,]+\Z')
_BRACKETS = re.compile(r"[\[\]{}]")
_CLOSING = {"{": "}", "[": "]"}


def decode(data: bytes) -> Any:
    """Lone halves of surrogate pairs stay in the texts; a byte that is no UTF-8 becomes U+FFFD. Raises
    UNREADABLE."""
    try:
        return _decode(data)
    except ValueError:
        if b"\\" not in data and data.isascii():
            raise
        try:
            return json.loads(data.decode(errors="replace"), strict=False)
        except ValueError:
            pass
        raise  # msgspec's error says more


def decode_cut(data: bytes) -> Any:
    """The beginning of a JSON object or array: what is open is closed, and an unfinished number, literal or
    member is left out. Raises UNREADABLE."""
    text = data.decode(errors="ignore")
    if text.count('"') > MOST_MARKS:
        raise ValueError("it has too many texts to be completed")
    outline = _STRING.sub(r'"\1', text)
    opened = _open_brackets(outline)
    if outline.count('"') % 2:
        text, outline = _PART_OF_ESCAPE.sub(r"\1", text) + '"', outline + '"'
    text, outline = text.rstrip(), outline.rstrip()
    if (literal := _PART_OF_LITERAL.search(outline)) is not None:
        text, outline = text[: -len(literal[0])].rstrip(), outline[: literal.start()].rstrip()
    if outline.endswith(","):
        text = text[:-1]
    elif outline.endswith(":"):
        text += "null"
    elif opened[-1] == "{" and outline.removesuffix('""').rstrip().endswith(("{", ",")) and text[-1] == '"':
        text += ":null"
    return decode((text + "".join(_CLOSING[one] for one in reversed(opened))).encode())


def _open_brackets(outline: str) -> list[str]:
    """Those that are not closed, of JSON whose texts are left out."""
    brackets: list[str] = _BRACKETS.findall(outline)
    opened: list[str] = []
    if len(brackets) > MOST_MARKS:
        raise ValueError("it is made of too many parts to be completed")
    for one in brackets:
        if one in _CLOSING:
            opened.append(one)
        elif not opened or _CLOSING[opened.pop()] != one:
            raise ValueError("it is not JSON")
    if not opened:
        raise ValueError("it is not the beginning of a JSON object")
    return opened
