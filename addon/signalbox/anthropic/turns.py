"""The messages of a request, decoded once and no further than their form: texts and results stay JSON.

Nothing is assumed of any field's type, and what cannot be decoded hides nothing else.
"""

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from .json_edit import UNREADABLE, Body

type Odd = str | int | float | bool | list[Any] | None
"""In place of an object."""

_NULL = msgspec.Raw(b"null")
_IS_LIST = re.compile(rb"\[")


class Part(msgspec.Struct, gc=False):
    """A block inside the result of a tool."""

    type: Any = None
    text: msgspec.Raw = _NULL


class Block(msgspec.Struct, gc=False):
    """A content block, or any object in its place."""

    type: Any = None
    id: Any = None
    tool_use_id: Any = None
    signature: Any = None
    data: Any = None
    text: msgspec.Raw = _NULL
    thinking: msgspec.Raw = _NULL
    input: dict[str, msgspec.Raw] | Odd | msgspec.UnsetType = msgspec.UNSET
    content: msgspec.Raw = _NULL

    def parts(self) -> list[Part]:
        """The blocks of a result; none where it is a text."""
        if not _IS_LIST.match(self.content):
            return []
        try:
            return [part for part in _parts.decode(self.content) if isinstance(part, Part)]
        except UNREADABLE:
            return []


class Turn(msgspec.Struct, gc=False):
    """A message, or any object in its place."""

    role: Any = None
    content: list[Block | Odd] | str | int | float | bool | dict[str, Any] | None = None

    def blocks(self) -> list[Block]:
        """None where the content is a text."""
        content = self.content
        return [one for one in content if isinstance(one, Block)] if isinstance(content, list) else []

    def texts(self) -> Iterator[str]:
        """The content, or the texts of its blocks."""
        if isinstance(self.content, str):
            yield self.content
        for block in self.blocks():
            if block.type == "text" and (text := text_of(block.text)) is not None:
                yield text


_parts: msgspec.json.Decoder[list[Part | Odd]] = msgspec.json.Decoder(list[Part | Odd])
_turn: msgspec.json.Decoder[Turn | Odd] = msgspec.json.Decoder(Turn | Odd)
_text = msgspec.json.Decoder(str)


def turns_of(body: Body) -> list[Turn]:
    """The messages in order, with an empty one in place of each that is none."""
    turns: list[Turn | Odd] | None = body.get("messages", list[Turn | Odd])
    if turns is None:
        turns = [_decoded(raw) for raw in body.get("messages", list[msgspec.Raw]) or ()]
    return [turn if isinstance(turn, Turn) else Turn() for turn in turns]


def _decoded(raw: msgspec.Raw) -> Turn | Odd:
    try:
        return _turn.decode(raw)
    except UNREADABLE:
        return None


def text_of(value: msgspec.Raw) -> str | None:
    """The text; None where it is something else."""
    try:
        return _text.decode(value)
    except UNREADABLE:
        return None
