"""Decodes the messages of a request once. Texts and results stay JSON.

Any field may have any type. A block that cannot be decoded does not hide the others.
"""

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from .json_edit import UNREADABLE, Body

type NotObject = str | int | float | bool | list[Any] | None
"""A JSON value where an object is expected."""

_NULL = msgspec.Raw(b"null")
_IS_LIST = re.compile(rb"\[")


class ResultPart(msgspec.Struct, gc=False):
    """A block inside the result of a tool."""

    type: Any = None
    text: msgspec.Raw = _NULL


class TurnBlock(msgspec.Struct, gc=False):
    """A content block, or any object in its place."""

    type: Any = None
    id: Any = None
    tool_use_id: Any = None
    signature: Any = None
    data: Any = None
    text: msgspec.Raw = _NULL
    thinking: msgspec.Raw = _NULL
    input: dict[str, msgspec.Raw] | NotObject | msgspec.UnsetType = msgspec.UNSET
    content: msgspec.Raw = _NULL

    def parts(self) -> list[ResultPart]:
        """The blocks of a result; empty if it is a text."""
        if not _IS_LIST.match(self.content):
            return []
        try:
            return [part for part in _parts.decode(self.content) if isinstance(part, ResultPart)]
        except UNREADABLE:
            return []


class Turn(msgspec.Struct, gc=False):
    """A message, or any object in its place."""

    role: Any = None
    content: list[TurnBlock | NotObject] | str | int | float | bool | dict[str, Any] | None = None

    def blocks(self) -> list[TurnBlock]:
        """The content blocks; empty if the content is a text."""
        content = self.content
        return [one for one in content if isinstance(one, TurnBlock)] if isinstance(content, list) else []

    def texts(self) -> Iterator[str]:
        """The content, or the texts of its blocks."""
        if isinstance(self.content, str):
            yield self.content
        for block in self.blocks():
            if block.type == "text" and (text := decode_text(block.text)) is not None:
                yield text


_parts: msgspec.json.Decoder[list[ResultPart | NotObject]] = msgspec.json.Decoder(
    list[ResultPart | NotObject]
)
_turn: msgspec.json.Decoder[Turn | NotObject] = msgspec.json.Decoder(Turn | NotObject)
_turns: msgspec.json.Decoder[list[Turn | NotObject]] = msgspec.json.Decoder(list[Turn | NotObject])
_text = msgspec.json.Decoder(str)


def turns_of(body: Body) -> list[Turn]:
    """The messages in order, with an empty one for each element that is no message."""
    turns = body.decode("messages", _turns)
    if turns is None:
        turns = [_decoded(raw) for raw in body.get("messages", list[msgspec.Raw]) or ()]
    return [turn if isinstance(turn, Turn) else Turn() for turn in turns]


def _decoded(raw: msgspec.Raw) -> Turn | NotObject:
    try:
        return _turn.decode(raw)
    except UNREADABLE:
        return None


def decode_text(value: msgspec.Raw) -> str | None:
    """The text; None for any other value."""
    try:
        return _text.decode(value)
    except UNREADABLE:
        return None
