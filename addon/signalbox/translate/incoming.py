"""A Messages body as it is read for translation: everything in it, whatever its types.

What a provider must get unchanged (arguments, schemas) stays bytes, so that number formats and the order of
keys survive. A field of an unexpected type is no reason to fail: who reads it asks what it is.
"""

import re
from functools import cached_property
from typing import Any

import msgspec

from signalbox.messages.json_edit import UNREADABLE
from signalbox.routing.translator import UntranslatableError
from signalbox.translate.shapes import as_list

_ESCAPE = re.compile(rb"(?<!\\)((?:\\\\)*+)(\\u[0-9a-fA-F]{4}(?:\\u[dD][c-fC-F][0-9a-fA-F]{2})?)")
"""In JSON: backslashes that stand for themselves, and a character by its number or by two."""

type Odd = str | int | float | bool | list[Any] | None
"""Stands where an object should."""
type Unlisted = str | int | float | bool | dict[str, Any] | None
"""Stands where a list should."""
type Piece = Block | Odd
"""An element of `content`."""
type Content = Block | str | int | float | bool | list[Piece] | None


class Source(msgspec.Struct, gc=False):
    """Of an image or a document."""

    type: Any = None
    media_type: Any = None
    data: Any = None
    url: Any = None
    content: "Content" = None


class Tool(msgspec.Struct):
    """An entry of `tools`, or what `tool_addition` defines."""

    name: Any = None
    type: Any = None
    description: Any = None
    input_schema: msgspec.Raw = msgspec.Raw(b"null")

    @property
    def is_function(self) -> bool:
        """Whether the client runs it, by a schema that it gives; all others are Anthropic's own."""
        named = isinstance(self.name, str) and bool(self.name)
        return named and (self.type in (None, "custom") or bytes(self.input_schema).startswith(b"{"))

    @property
    def shown(self) -> str:
        """For people: toolsets have no name."""
        return str(self.name or self.type)


class Change(msgspec.Struct):
    """The `tool` of a `tool_addition` or `tool_removal`."""

    name: Any = None
    definition: Tool | Odd = None


class Block(msgspec.Struct):
    """A content block, or any object that stands where one could be."""

    type: Any = None
    text: Any = None
    thinking: Any = None
    signature: Any = None
    source: Source | Odd = None
    id: Any = None
    name: Any = None
    input: msgspec.Raw = msgspec.Raw(b"{}")
    tool_use_id: Any = None
    tool_name: Any = None
    tool: Change | Odd = None
    is_error: Any = None
    title: Any = None
    context: Any = None
    url: Any = None
    stdout: Any = None
    stderr: Any = None
    error_code: Any = None
    cache_control: Any = None
    content: Content = None

    @property
    def arguments(self) -> str:
        """`input` in compact form and without needless escapes; numbers and the order of keys stay as the
        client has them. An object may be given as text; what is no object is none (translation.md, 7)."""
        told = bytes(self.input)
        try:
            if told.startswith(b'"'):
                told = msgspec.json.decode(told, type=str).encode()
            if not told.startswith(b"{"):
                return "{}"
            compact = msgspec.json.format(told, indent=-1)
            return (_ESCAPE.sub(_unescaped, compact) if b"\\u" in compact else compact).decode()
        except msgspec.MsgspecError:
            return "{}"


class Message(msgspec.Struct):
    role: Any = None
    content: Content = None


class Offered(msgspec.Struct):
    """What tells whether a request can be translated at all."""

    tools: list[Tool | Odd] | Unlisted = None
    tool_choice: Any = None
    thread: Any = None
    compaction: Any = None


class Incoming(Offered, dict=True):
    """The fields that mean something to others than Anthropic."""

    messages: msgspec.Raw = msgspec.Raw(b"null")
    system: Content = None
    max_tokens: Any = None
    stream: Any = None
    stop_sequences: Any = None
    temperature: Any = None
    top_p: Any = None
    top_k: Any = None
    thinking: Any = None
    output_config: Any = None
    output_format: Any = None

    @cached_property
    def turns(self) -> list[Message]:
        """Decoded one by one, so that other threads run in between. Raises UntranslatableError."""
        messages = (_decode(_message, raw) for raw in as_list(_decode(_list, self.messages)))
        return [message for message in messages if isinstance(message, Message)]


def _unescaped(found: re.Match[bytes]) -> bytes:
    """A character as itself, where JSON lets it stand so: what a model wrote is to look the same to it."""
    before, escape = found.groups()
    char = msgspec.json.decode(b'"%b"' % escape, type=str)
    return before + (escape if char < " " or char in '"\\' else char.encode())


_incoming = msgspec.json.Decoder(Incoming)
_offered = msgspec.json.Decoder(Offered)
_list: msgspec.json.Decoder[list[msgspec.Raw] | Unlisted] = msgspec.json.Decoder(list[msgspec.Raw] | Unlisted)
_message: msgspec.json.Decoder[Message | Odd] = msgspec.json.Decoder(Message | Odd)


def read(raw: bytes) -> Incoming:
    """Raises UntranslatableError for what is no JSON object, is nested too deeply, or holds a number that
    is too large."""
    incoming = _decode(_incoming, raw)
    _ = incoming.turns
    return incoming


def read_offered(raw: bytes) -> Offered:
    """The same for a few fields; the others are skipped."""
    return _decode(_offered, raw)


def _decode[T](decoder: msgspec.json.Decoder[T], raw: bytes | msgspec.Raw) -> T:
    try:
        return decoder.decode(raw)
    except UNREADABLE as error:
        raise UntranslatableError(f"the request cannot be read: {error}") from None


def pieces(content: Content) -> list[Piece]:
    return content if isinstance(content, list) else [content]
