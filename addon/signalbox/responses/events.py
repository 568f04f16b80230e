"""Parses the events of Responses into steps (openai-responses.md, 6).

Most events are pieces of a text; these are decoded straight into a `Piece`. Events that need no answer of
ours (parts that begin or end, searches in progress, sounds, pictures, keepalives) are not parsed. Any field
may have any type, and any event may be missing.
"""

import json
import re
from collections.abc import Mapping
from typing import Literal

import msgspec

from signalbox.anthropic.api import token_count
from signalbox.anthropic.errors import shows_error
from signalbox.anthropic.json_edit import UNREADABLE, whole_characters
from signalbox.anthropic.sse import parse_bare_event
from signalbox.openai.chunks import arguments_text, parse_object
from signalbox.openai.incoming import Object, as_object, as_text

type ItemKind = Literal["message", "reasoning", "call", "custom call", "search"]
type PartKind = Literal["text", "refusal", "summary", "reasoning", "arguments", "input"]
type Key = int | str
"""Which item an event is about: its `output_index`. Only where a server sends none it is the id, which others
change from event to event."""

ITEMS: Mapping[str, ItemKind] = {
    "message": "message",
    "reasoning": "reasoning",
    "function_call": "call",
    "custom_tool_call": "custom call",
    "web_search_call": "search",
}
"""Types of items that become part of an answer."""

PARTS: Mapping[str, tuple[ItemKind, PartKind]] = {
    "response.output_text": ("message", "text"),
    "response.refusal": ("message", "refusal"),
    "response.reasoning_summary_text": ("reasoning", "summary"),
    "response.reasoning_text": ("reasoning", "reasoning"),
    "response.function_call_arguments": ("call", "arguments"),
    "response.custom_tool_call_input": ("custom call", "input"),
}
"""Events about texts, without `.delta` or `.done`: the item of such a text, and what it is."""
_DELTAS = {f"{name}.delta": part for name, part in PARTS.items()}
_DONES = {f"{name}.done": part for name, part in PARTS.items()}
_ENDS = ("response.completed", "response.incomplete", "response.failed", "response.done")
_BEGINS = ("response.created", "response.in_progress", "response.queued")
_READ = frozenset(
    {
        *_DELTAS,
        *_DONES,
        *_BEGINS,
        *_ENDS,
        "response.output_item.added",
        "response.output_item.done",
        "response.output_text.annotation.added",
    }
)
_OWN = ("response.", "codex.", "keepalive")
"""How the events of the protocol begin; those that are not in `_READ` are ignored."""
_FOREIGN = ("choices", "candidates")
"""Fields of the answers of other protocols."""


class Piece(msgspec.Struct, gc=False):
    """A further piece of a text, decoded from its event."""

    type: str
    output_index: Key
    delta: str
    content_index: int = 0
    summary_index: int = 0

    @property
    def part(self) -> int:
        """The position of the text in its item; one of the two is 0."""
        return self.content_index or self.summary_index


class Begun(msgspec.Struct, frozen=True):
    """The response exists. Errors may still follow."""

    model: str


class TextEnded(msgspec.Struct, frozen=True):
    """A whole text; its pieces may have come before."""

    type: str
    """That of a piece."""
    key: Key
    part: int
    text: str
    name: str
    """Of the tool, if the event names it."""


class ItemBegun(msgspec.Struct, frozen=True):
    key: Key
    item: Object


class ItemEnded(msgspec.Struct, frozen=True):
    key: Key
    item: Object


class Cited(msgspec.Struct, frozen=True):
    """A message cites a source."""

    key: Key
    annotation: Object


class Ended(msgspec.Struct, frozen=True):
    """The last event, or a whole answer."""

    status: str
    """`completed`, `incomplete`, or anything else a server says."""
    reason: str
    """Why it is incomplete."""
    output: tuple[msgspec.Raw, ...]
    """All items, unless the server leaves them out here."""
    usage: Object
    model: str
    searches: int = 0
    """The web searches that the server counts."""


class ErrorReported(msgspec.Struct, frozen=True):
    """An error that the provider reports."""

    body: bytes
    usage: Object = {}
    """Of a response that has failed."""


class Foreign(msgspec.Struct, frozen=True):
    """An answer of another protocol."""

    body: bytes


class Malformed(msgspec.Struct, frozen=True):
    """An event that cannot be parsed."""


type Step = (
    Piece | Begun | TextEnded | ItemBegun | ItemEnded | Cited | Ended | ErrorReported | Foreign | Malformed
)


class _Begun(msgspec.Struct, gc=False):
    """A beginning, without the copy of instructions and tools that OpenAI puts into it."""

    model: str = ""


class _BegunEvent(msgspec.Struct):
    response: _Begun


class _Response(msgspec.Struct):
    """The fields of a response that are read; OpenAI's repeats instructions and tools."""

    model: str = ""
    status: str = ""
    output: tuple[msgspec.Raw, ...] | None = None
    usage: Object | None = None
    error: Object | None = None
    incomplete_details: Object | None = None
    tool_usage: Object | None = None


class _EndEvent(msgspec.Struct):
    response: _Response


_piece = msgspec.json.Decoder(Piece)
_begun = msgspec.json.Decoder(_BegunEvent)
_end = msgspec.json.Decoder(_EndEvent)
_EVENT, _DELTA, _DATA = b"event: response.", b".delta", b"\ndata: {"
_NAMELESS = re.compile(rb'data: (?=\{"type": ?"response\.[a-z_]+\.delta")')
_NAMED_EVENT = re.compile(rb'(?:event: ?([\w.-]+)\n)?data: ?(?:\{\s*"type"\s*:\s*"([\w.-]+)")?')


def piece_of(block: bytes) -> Piece | None:
    """The piece of a text that an event is, as most are; None if `step_of` must read it."""
    at = block.find(_DATA)
    if at >= 0 and block.startswith(_EVENT):
        if not block.startswith(_DELTA, at - len(_DELTA)):
            return None
        at += len(_DATA) - 1
    elif found := _NAMELESS.match(block):
        at = found.end()
    else:
        return None
    try:
        return _piece.decode(block[at:])
    except UNREADABLE:
        return None


def step_of(block: bytes) -> Step | None:
    """The step of one event of a stream; None for comments, and for events that are ignored."""
    found = _NAMED_EVENT.match(block)
    name = (found[2] or found[1] or b"").decode() if found else ""
    if name.startswith(_OWN) and name not in _READ:
        return None
    event = parse_bare_event(block)
    data = event.data.strip()
    if name in _BEGINS or name in _ENDS:
        try:
            if name in _BEGINS:
                return Begun(whole_characters(_begun.decode(data).response.model))
            return _ended(name, _end.decode(data).response)
        except UNREADABLE:
            pass
    if not data or data == b"[DONE]":
        return None
    value = parse_object(data)
    if event.name == "error" or name == "error":
        return ErrorReported(_error_body(value or {}, data))
    if not data.startswith((b"{", b"[")):
        return None
    return Malformed() if value is None else _step(value, event.name, data)


def whole_answer(body: bytes) -> Ended | ErrorReported | Malformed:
    """The step of an answer that is not streamed."""
    value = parse_object(body)
    if value is None:
        return Malformed()
    is_response = as_text(value.get("object")) == "response" or isinstance(value.get("output"), list)
    return _ended("", _read(value)) if is_response else ErrorReported(body)


def _step(value: Object, name: str, data: bytes) -> Step | None:
    kind = whole_characters(as_text(value.get("type"))) or name
    if kind in _DELTAS or kind in _DONES:
        return _text(kind, value)
    if kind in _BEGINS:
        return Begun(whole_characters(as_text(as_object(value.get("response")).get("model"))))
    if kind in _ENDS:
        return _ended(kind, _read(as_object(value.get("response"))))
    key = _key(value)
    match kind:
        case "response.output_item.added":
            return ItemBegun(key, as_object(value.get("item")))
        case "response.output_item.done":
            return ItemEnded(key, as_object(value.get("item")))
        case "response.output_text.annotation.added":
            return Cited(key, as_object(value.get("annotation")))
    if kind.startswith(_OWN):
        return None
    if kind == "error" or shows_error(value):
        return ErrorReported(_error_body(value, data))
    is_foreign = kind.startswith("message_") or not value.keys().isdisjoint(_FOREIGN)
    return Foreign(data) if is_foreign else None


def _text(kind: str, value: Object) -> Step:
    indices = (value.get("content_index"), value.get("summary_index"))
    part = next((one for one in indices if type(one) is int and one), 0)
    if kind in _DELTAS:
        return Piece(kind, _key(value), as_text(value.get("delta")), part)
    fields = (value.get("text"), value.get("refusal"), value.get("input"))
    text = next((one for one in fields if isinstance(one, str)), "")
    if "arguments" in value:
        text = arguments_text(value["arguments"])
    of_piece = kind.removesuffix("done") + "delta"
    return TextEnded(of_piece, _key(value), part, text, whole_characters(as_text(value.get("name"))))


def _key(value: Object) -> Key:
    index = value.get("output_index")
    return index if type(index) is int else whole_characters(as_text(value.get("item_id")))


def _read(response: Object) -> _Response:
    """A response with fields of any type."""
    output = response.get("output")
    return _Response(
        model=as_text(response.get("model")),
        status=as_text(response.get("status")),
        output=tuple(msgspec.Raw(_encoded(item)) for item in output) if isinstance(output, list) else None,
        usage=as_object(response.get("usage")),
        error=as_object(response.get("error")),
        incomplete_details=as_object(response.get("incomplete_details")),
        tool_usage=as_object(response.get("tool_usage")),
    )


def _ended(event: str, response: _Response) -> Ended | ErrorReported:
    """`event` is the type of the last event; empty for a whole answer."""
    status = response.status.lower() or event.removeprefix("response.")
    if response.error or status in ("failed", "cancelled") or event == "response.failed":
        told = "was cancelled" if status == "cancelled" else "failed"
        error = response.error or {"type": "api_error", "message": f"the response {told}"}
        return ErrorReported(_encoded({"error": error}), response.usage or {})
    return Ended(
        "incomplete" if event == "response.incomplete" else status,
        as_text((response.incomplete_details or {}).get("reason")),
        response.output or (),
        response.usage or {},
        whole_characters(response.model),
        token_count(as_object((response.tool_usage or {}).get("web_search")).get("num_requests")),
    )


def _error_body(value: Object, data: bytes) -> bytes:
    """The body of an error that came as an event. Codex puts the status beside the error."""
    error, status = as_object(value.get("error")), value.get("status_code")
    if not error or error.get("code") is not None or type(status) is not int:
        return data
    return _encoded({"error": error | {"code": status}})


def _encoded(value: object) -> bytes:
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:  # halves of surrogate pairs, which JSON can escape
        return json.dumps(value).encode()
