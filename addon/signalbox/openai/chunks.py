"""Parses chunks of chat completions into steps.

A whole answer is read as one chunk. The spelling of each provider is known here only (openai-chat.md, 2 to
4). Any field may have any type.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from signalbox.anthropic.errors import has_error_text, shows_error
from signalbox.anthropic.json_edit import UNREADABLE, whole_characters
from signalbox.anthropic.sse import Event
from signalbox.openai.incoming import Object, as_object, as_objects, as_text


class ChoiceStarted(msgspec.Struct, frozen=True):
    """The answer has begun: a chunk with a choice."""

    model: str


class TextPiece(msgspec.Struct, frozen=True):
    text: str


class Refusal(msgspec.Struct, frozen=True):
    text: str


class Reasoning(msgspec.Struct, frozen=True):
    """Thinking; empty if a provider sends only `details`."""

    text: str
    key: str = ""
    """The field that held it; empty if it was in the content."""
    details: tuple[Object, ...] = ()
    """OpenRouter's `reasoning_details`."""


class Citation(msgspec.Struct, frozen=True):
    """A page that a hosted search found and the text cites."""

    url: str
    title: str = ""


class Fragment(msgspec.Struct, frozen=True):
    """The part of a tool call that this chunk has."""

    index: int | None = None
    id: str = ""
    name: str = ""
    arguments: str = ""
    signature: str = ""
    """Gemini's, which requires it with the call in later requests."""


class FullMessage(msgspec.Struct, frozen=True):
    """A whole message. In a stream some providers send it after its pieces, or send in each chunk all of the
    message so far; only the part that was not sent before counts."""

    steps: "tuple[Step, ...]"


class Finish(msgspec.Struct, frozen=True):
    reason: str
    """In lower case."""
    stop: str = ""
    """The stop sequence that ended the answer, as the provider reports it."""


class UsageReported(msgspec.Struct, frozen=True):
    usage: Object


class ErrorChunk(msgspec.Struct, frozen=True):
    """An error that the provider reports."""

    body: bytes


class Foreign(msgspec.Struct, frozen=True):
    """An object that is neither a chunk nor an error."""

    body: bytes
    has_message: bool
    """Whether it has a message for people, as an error has."""


class EndOfStream(msgspec.Struct, frozen=True):
    """The end of the stream (`[DONE]`)."""


class Malformed(msgspec.Struct, frozen=True):
    """A chunk that cannot be parsed."""


type Step = (
    ChoiceStarted
    | TextPiece
    | Refusal
    | Reasoning
    | Citation
    | Fragment
    | FullMessage
    | Finish
    | UsageReported
    | ErrorChunk
    | Foreign
    | EndOfStream
    | Malformed
)

_REASONING = ("reasoning_content", "reasoning_details", "reasoning", "thinking")
"""Several may hold the same text; the first counts (openai-chat.md, 3)."""
_CALLS = ("tool_calls", "function_call", "extra_content")
_ERROR = re.compile(rb'["\[(*\s]*error\b', re.IGNORECASE)
"""An error that is not JSON, as some proxies write it into a stream."""
_OTHER_PROTOCOLS = ("message_start", "response.")
"""Types of the events of the Messages and the Responses API."""
_FUNCTION_CALL = -1
"""The index of the one call in the old field `function_call`."""


class _PlainDelta(msgspec.Struct, gc=False):
    content: str
    reasoning_content: None = None
    reasoning_details: tuple[()] | None = None
    reasoning: None = None
    thinking: None = None
    refusal: None = None
    annotations: tuple[()] | None = None
    tool_calls: tuple[()] | None = None
    function_call: None = None
    extra_content: None = None


class _PlainChoice(msgspec.Struct, gc=False):
    delta: _PlainDelta
    index: Literal[0] | None = None
    message: None = None
    finish_reason: None = None
    usage: None = None
    error: None = None


class _PlainChunk(msgspec.Struct, gc=False):
    """A chunk with a piece of text and nothing else: all other fields that `chunk_steps` reads are missing or
    null."""

    choices: tuple[_PlainChoice]
    usage: None = None
    type: None = None
    object: str | None = None
    error: None = None
    errors: None = None
    base_resp: None = None
    error_message: None = None
    error_msg: None = None
    errorMessage: None = None  # noqa: N815  as providers spell it
    errorMsg: None = None  # noqa: N815  likewise


_plain_chunk = msgspec.json.Decoder(_PlainChunk)
_DATA = b"data: {"


def plain_text(block: bytes) -> str | None:
    """The text of an event that is only a piece of text, as most are; None if `parse_chunk` must read it."""
    if not block.startswith(_DATA) or b"\n" in block:
        return None
    try:
        chunk = _plain_chunk.decode(memoryview(block)[len(_DATA) - 1 :])
    except UNREADABLE:
        return None
    return chunk.choices[0].delta.content if chunk.object != "error" else None


def parse_chunk(event: Event) -> list[Step]:
    """The steps of one event of a stream; none for comments and for text that is not JSON, unless it is an
    error."""
    data = event.data.strip()
    if data == b"[DONE]":
        return [EndOfStream()]
    if event.name == "error" or _ERROR.match(data):
        return [ErrorChunk(data)]
    if not data.startswith((b"{", b"[")):
        return []
    value = parse_object(data)
    return [Malformed()] if value is None else list(chunk_steps(value, data))


def parse_object(data: bytes) -> Object | None:
    """A JSON object, or the first one of an array, as Gemini sends errors. Other JSON gives an empty object,
    invalid JSON None. Accepts NaN, invalid UTF-8, and halves of surrogate pairs, which stay."""
    value: object
    try:
        value = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        try:
            value = json.loads(_decoded(data), strict=False)
        except (ValueError, RecursionError):
            return None
    if isinstance(value, list):
        value = next(iter(value), None)
    return as_object(value)


def _decoded(data: bytes) -> str:
    """Decodes UTF-8, also with surrogates written as characters (CESU-8)."""
    try:
        return data.decode(errors="surrogatepass")
    except UnicodeDecodeError:
        return data.decode(errors="replace")


def chunk_steps(value: Object, raw: bytes) -> Iterator[Step]:
    """The steps of one chunk. `raw` is its JSON, which an error keeps."""
    is_error = shows_error(value)
    for choice in as_objects(value.get("choices")):
        if choice.get("index") in (None, 0):
            yield from _choice(choice, whole_characters(as_text(value.get("model"))), is_error)
    if usage := as_object(value.get("usage")):
        yield UsageReported(usage)
    if is_error or as_text(value.get("type")).startswith(_OTHER_PROTOCOLS):
        yield ErrorChunk(raw)
    elif value and not usage and value.get("choices") is None:
        yield Foreign(raw, has_error_text(value))


def _choice(choice: Object, model: str, is_error: bool) -> Iterator[Step]:
    """The steps of a choice. Azure sends choices without a delta, with the results of its filter."""
    delta, message = as_object(choice.get("delta")), as_object(choice.get("message"))
    if delta or message:
        yield ChoiceStarted(model)
    if delta:
        yield from _content(delta)
        yield from _calls(delta, is_whole=False)
    if message and (steps := (*_content(message), *_calls(message, is_whole=True))):
        yield FullMessage(steps)
    if usage := as_object(choice.get("usage")):
        yield UsageReported(usage)
    if (reason := as_text(choice.get("finish_reason"))) and not is_error:
        yield Finish(
            whole_characters(reason).lower(),
            as_text(choice.get("stop_reason")) or as_text(choice.get("matched_stop")),
        )


def _content(delta: Object) -> Iterator[Step]:
    if not delta.keys().isdisjoint(_REASONING) and (reasoning := _reasoning(delta)) is not None:
        yield reasoning
    content = delta.get("content")
    if isinstance(content, list):
        yield from _parts(content)
    elif text := as_text(content):
        yield TextPiece(text)
    if refusal := as_text(delta.get("refusal")):
        yield Refusal(refusal)
    for annotation in as_objects(delta.get("annotations")):
        cited = as_object(annotation.get("url_citation"))
        if url := as_text(cited.get("url")):
            yield Citation(whole_characters(url), whole_characters(as_text(cited.get("title"))))


def _reasoning(delta: Object) -> Reasoning | None:
    details = tuple(as_objects(delta.get("reasoning_details")))
    for key in _REASONING:
        if text := as_text(delta.get(key)):
            return Reasoning(text, key, details)
    if not details:
        return None
    text = "".join(as_text(one.get("text")) or as_text(one.get("summary")) for one in details)
    return Reasoning(text, "reasoning_details", details)


def _parts(content: list[Any]) -> Iterator[Step]:
    """Mistral's content: `[{type: thinking, thinking: [{type: text, text}]}, {type: text, text}]`."""
    for part in as_objects(content):
        if text := as_text(part.get("text")):
            yield TextPiece(text)
        thinking = part.get("thinking")
        if text := as_text(thinking) or "".join(as_text(one.get("text")) for one in as_objects(thinking)):
            yield Reasoning(text)


def _calls(delta: Object, *, is_whole: bool) -> Iterator[Step]:
    """In a whole message each entry is a call; in a stream an entry without index may belong to any call."""
    if delta.keys().isdisjoint(_CALLS):
        return
    for place, call in enumerate(as_objects(delta.get("tool_calls"))):
        index = call.get("index")
        function = as_object(call.get("function"))
        yield Fragment(
            place if is_whole else index if type(index) is int else None,
            whole_characters(as_text(call.get("id"))),
            whole_characters(as_text(function.get("name"))),
            arguments_text(function.get("arguments")),
            _signature(call),
        )
    if function := as_object(delta.get("function_call")):
        yield Fragment(
            _FUNCTION_CALL,
            "",
            whole_characters(as_text(function.get("name"))),
            arguments_text(function.get("arguments")),
        )
    if signature := _signature(delta):
        yield Fragment(signature=signature)


def arguments_text(value: object) -> str:
    """The arguments as text; some local servers send an object."""
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False)


def _signature(holder: Object) -> str:
    google = as_object(as_object(holder.get("extra_content")).get("google")).get("thought_signature")
    return whole_characters(as_text(google))
