"""The types into which a Messages body is decoded for translation.

Every field may have any type; the code that uses a field checks it. Arguments and schemas, which providers
must get unchanged, stay bytes, so that number formats and the order of keys survive.
"""

import re
from collections.abc import Iterable
from functools import cached_property
from typing import Any

import msgspec

from signalbox.anthropic.json_edit import UNREADABLE, Body
from signalbox.anthropic.turns import NotObject
from signalbox.routing.translator import UntranslatableError

type Object = dict[str, Any]


def as_object(value: object) -> Object:
    return value if isinstance(value, dict) else {}


def as_list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def as_objects(value: object) -> list[Object]:
    """The objects in a list."""
    return [one for one in as_list(value) if isinstance(one, dict)]


def as_text(value: object) -> str:
    return value if isinstance(value, str) else ""


_ESCAPE = re.compile(rb"(?<!\\)((?:\\\\)*+)(\\u[0-9a-fA-F]{4}(?:\\u[dD][c-fC-F][0-9a-fA-F]{2})?)")
"""In JSON: escaped backslashes, and then an escaped character or surrogate pair."""

_TEXT = re.compile(rb'"')
_MAYBE_BLANK = re.compile(rb'"(?:\s|[\x80-\xff]|\\[nrtu][0-9a-fA-F]{0,4})*+"')

type NotList = str | int | float | bool | dict[str, Any] | None
"""A JSON value where a list is expected."""
type Piece = ContentBlock | NotObject
"""An element of `content`."""
type Content = ContentBlock | str | int | float | bool | list[Piece] | None


class Source(msgspec.Struct, gc=False):
    """The `source` of an image or a document."""

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
    strict: Any = None
    allowed_domains: Any = None
    blocked_domains: Any = None
    user_location: Any = None

    @property
    def is_function(self) -> bool:
        """Whether the client runs it and gives its schema; all others are Anthropic's server tools."""
        named = isinstance(self.name, str) and bool(self.name)
        return named and (self.type in (None, "custom") or bytes(self.input_schema).startswith(b"{"))

    @property
    def is_web_search(self) -> bool:
        """Whether it is Anthropic's web search, of any version."""
        return not self.is_function and as_text(self.type).startswith("web_search_")

    @property
    def shown(self) -> str:
        """For people; a toolset has only a type."""
        return str(self.name or self.type)


class Change(msgspec.Struct):
    """The `tool` of a `tool_addition` or `tool_removal`."""

    name: Any = None
    definition: Tool | NotObject = None


class ContentBlock(msgspec.Struct, gc=False):
    """A content block, or any object in its place."""

    type: Any = None
    text: Any = None
    thinking: Any = None
    signature: Any = None
    data: Any = None
    source: Source | NotObject = None
    id: Any = None
    name: Any = None
    input: msgspec.Raw = msgspec.Raw(b"{}")
    tool_use_id: Any = None
    tool_name: Any = None
    tool: Change | NotObject = None
    is_error: Any = None
    title: Any = None
    context: Any = None
    url: Any = None
    stdout: Any = None
    stderr: Any = None
    error_code: Any = None
    cache_control: Any = None
    content: msgspec.Raw = msgspec.Raw(b"null")
    """Of a result: most of a long conversation."""

    @property
    def inner(self) -> Content:
        """`content`, decoded. Raises UntranslatableError."""
        return _decode(_content, self.content)

    @property
    def holds_text(self) -> bool:
        """Whether `content` is one text that says something. It is not decoded."""
        return _TEXT.match(self.content) is not None and not _MAYBE_BLANK.fullmatch(self.content)

    @property
    def arguments(self) -> str:
        """`input` as compact JSON without needless escapes; numbers and the order of keys stay. An object may
        come as a string; anything else becomes `{}` (translation.md, 7)."""
        raw = bytes(self.input)
        try:
            if raw.startswith(b'"'):
                raw = msgspec.json.decode(raw, type=str).encode()
            if not raw.startswith(b"{"):
                return "{}"
            compact = msgspec.json.format(raw, indent=-1)
            return (_ESCAPE.sub(_unescaped, compact) if b"\\u" in compact else compact).decode()
        except msgspec.MsgspecError:
            return "{}"


class Message(msgspec.Struct, gc=False):
    role: Any = None
    content: Content = None


class Offered(msgspec.Struct):
    """The fields that decide whether a request can be translated."""

    tools: list[Tool | NotObject] | NotList = None
    tool_choice: Any = None
    thread: Any = None
    compaction: Any = None


class MessagesRequest(Offered, dict=True):
    """The fields that can be translated."""

    messages: list[Message | NotObject] | NotList = None
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
        return [message for message in as_list(self.messages) if isinstance(message, Message)]


def _unescaped(found: re.Match[bytes]) -> bytes:
    """The character itself unless JSON must escape it, so that the model sees what it wrote."""
    before, escape = found.groups()
    char = msgspec.json.decode(b'"%b"' % escape, type=str)
    return before + (escape if char < " " or char in '"\\' else char.encode())


_incoming = msgspec.json.Decoder(MessagesRequest)
_offered: dict[str, msgspec.json.Decoder[Any]] = {
    field.name: msgspec.json.Decoder(field.type) for field in msgspec.structs.fields(Offered)
}
_content: msgspec.json.Decoder[Content] = msgspec.json.Decoder(Content)


def decode_request(raw: bytes) -> MessagesRequest:
    """Reads a Messages body. Raises UntranslatableError if it is not a JSON object, is nested too deeply, or
    holds a number that is too large."""
    return _decode(_incoming, raw)


def decode_offered(body: Body) -> Offered:
    """Reads only the fields of `Offered`. Raises UntranslatableError."""
    views = ((name, body.view(name), decoder) for name, decoder in _offered.items())
    return Offered(**{name: _decode(decoder, view) for name, view, decoder in views if view is not None})


def _decode[T](decoder: msgspec.json.Decoder[T], raw: bytes | memoryview | msgspec.Raw) -> T:
    try:
        return decoder.decode(raw)
    except UNREADABLE as error:
        raise UntranslatableError(f"the request cannot be read: {error}") from None


def pieces(content: Content) -> list[Piece]:
    return content if isinstance(content, list) else [content]


_NO_TEXT = ("thinking", "redacted_thinking", "fallback", "container_upload")


def text_in(piece: Piece) -> str:
    """All text in a block of any type, joined by line breaks, without thinking, media and encrypted parts.
    Includes results of Anthropic's server tools (translation.md, 2)."""
    if isinstance(piece, str):
        return piece
    if isinstance(piece, list):
        return join_texts(map(text_in, piece))
    if not isinstance(piece, ContentBlock) or piece.type in _NO_TEXT:
        return ""
    match piece.type:
        case "text":
            return as_text(piece.text)
        case "tool_use" | "server_tool_use" | "mcp_tool_use":
            return f"[{as_text(piece.name)} {piece.arguments}]"
        case "tool_reference":
            return as_text(piece.tool_name)
        case "tool_addition" | "tool_removal":
            state = "available now" if piece.type == "tool_addition" else "no longer available"
            return f"[The tool {_changed_tool(piece)} is {state}.]"
    fields = (piece.title, piece.context, piece.url, piece.source, piece.text, piece.error_code)
    return join_texts((*map(_text_of_value, (*fields, piece.stdout, piece.stderr)), text_in(piece.inner)))


def join_texts(texts: Iterable[str], by: str = "\n") -> str:
    return by.join(text for text in texts if has_text(text))


def has_text(text: str) -> bool:
    """False for white space alone, which providers refuse as content."""
    return bool(text) and not text.isspace()


def defined_by(piece: Piece) -> Tool | None:
    """The tool that a `tool_addition` defines; None if it only names one of `tools`."""
    if (
        not isinstance(piece, ContentBlock)
        or piece.type != "tool_addition"
        or not isinstance(piece.tool, Change)
    ):
        return None
    return piece.tool.definition if isinstance(piece.tool.definition, Tool) else None


def _changed_tool(piece: ContentBlock) -> str:
    change = piece.tool if isinstance(piece.tool, Change) else Change()
    return as_text(change.name) or as_text(
        change.definition.name if isinstance(change.definition, Tool) else ""
    )


def _text_of_value(value: object) -> str:
    """The text of a field; a document's source may be text too."""
    if isinstance(value, Source):
        return _text_of_value(value.data) if value.type == "text" else text_in(value.content)
    return as_text(value)
