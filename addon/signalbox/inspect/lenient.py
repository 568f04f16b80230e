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
_PART_OF_ESCAPE = re.compile(r"\\(?:u[\da-fA-F]{0,3})?\Z")
_LONGEST_PART = 5
_LITERALS = "0123456789+-.eEtrufalsn"
"""Characters of numbers, `true`, `false` and `null`."""
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
    between = text.replace("\\\\", "").replace('\\"', "").split('"')
    is_in_text = len(between) % 2 == 0
    outline = '""'.join(between[::2])
    opened = _open_brackets(outline)
    if is_in_text:
        text, outline = f'{_whole_escapes(text)}"', f'{outline}""'
    text, outline = text.rstrip(), outline.rstrip()
    literal = len(outline) - len(outline.rstrip(_LITERALS))
    text, outline = text[: len(text) - literal].rstrip(), outline[: len(outline) - literal].rstrip()
    if outline.endswith(","):
        text = text[:-1]
    elif outline.endswith(":"):
        text += "null"
    elif opened[-1] == "{" and outline.removesuffix('""').rstrip().endswith(("{", ",")) and text[-1] == '"':
        text += ":null"
    return decode((text + "".join(_CLOSING[one] for one in reversed(opened))).encode())


def _whole_escapes(text: str) -> str:
    """A text without the part of an escape at its end."""
    part = _PART_OF_ESCAPE.search(text, max(len(text) - _LONGEST_PART, 0))
    if part is None:
        return text
    before = text[: part.start()]
    is_escaped = (len(before) - len(before.rstrip("\\"))) % 2
    return text if is_escaped else before


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
