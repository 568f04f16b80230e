"""Answers as readable text: a stream put together, or one whole message.

`answer_of` takes the body as it is stored, also one that is still coming or was cut. It tells which protocol
an answer is by its first event or by its members, since a client's answer may be another protocol's than the
request's that went upstream.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from signalbox.anthropic.sse import Splitter, parse_event
from signalbox.inspect.requests import messages_block, responses_item
from signalbox.inspect.text import (
    arguments,
    as_json,
    folded,
    indented,
    items,
    mapping,
    section,
    text_of,
)

type Protocol = Literal["messages", "chat", "responses"]
type Lines = Iterator[str]

PEEK = 4_096
"""Bytes by which a protocol is told."""
COUNTS = {
    "input_tokens": "input",
    "output_tokens": "output",
    "cache_read_input_tokens": "cache read",
    "cache_creation_input_tokens": "cache write",
    "cached_tokens": "cached",
    "cache_write_tokens": "cache write",
    "reasoning_tokens": "reasoning",
    "total_tokens": "total",
}
"""What counts of tokens are called in a line."""
ODD_SHOWN = 20
"""Odd events that are shown."""


def protocol_of(data: bytes) -> Protocol | None:
    """Whose answer this is, by its beginning; None where it is none of these."""
    start = data[:PEEK].lstrip(b"\xef\xbb\xbf \r\n\t")
    if not start.startswith((b"{", b"data:", b"event:", b":")):
        return None
    if b'"response.' in start or b"event: response." in start or b'"object":"response"' in _tight(start):
        return "responses"
    if b'"chat.completion' in start or b'"choices"' in start:
        return "chat"
    tight = _tight(start)
    kinds = (b'"type":"message_start"', b'"type":"message"', b'"type":"error"', b'"type":"ping"')
    return "messages" if any(kind in tight for kind in kinds) else None


def _tight(start: bytes) -> bytes:
    return start.replace(b'": ', b'":')


_USUAL_EVENT = re.compile(rb"(?:event: ?[^\n]*\n)?data: ?([^\n]*)")
"""All of nearly every event: its name and one line of data."""
_GROWN = {f"{name}_delta": name for name in ("text", "thinking", "signature")}
_decode = msgspec.json.Decoder().decode


class AnswerBlock:
    """A block of content in the form of the Messages API, whose texts grow piece by piece."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.fields = fields
        self._grown: dict[str, list[str]] = {}

    @property
    def kind(self) -> str:
        return text_of(self.fields.get("type"))

    def grow(self, name: str, text: Any) -> None:
        if (grown := self._grown.get(name)) is None:
            grown = self._grown[name] = []
        grown.append(text if type(text) is str else text_of(text))

    def grown(self, name: str) -> str:
        return text_of(self.fields.get(name)) + "".join(self._grown.get(name, ()))

    def whole(self) -> dict[str, Any]:
        return self.fields | {name: self.grown(name) for name in self._grown}


@dataclass
class Assembled:
    """What the events of a stream add up to so far."""

    head: dict[str, Any] = field(default_factory=dict)
    """Model, id and the like."""
    blocks: list[AnswerBlock] = field(default_factory=list)
    by_index: dict[Any, AnswerBlock] = field(default_factory=dict)
    """The items of Responses by their `output_index`."""
    stop: str = ""
    usage: dict[str, Any] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    """Events that do not fit, in words."""
    ended: bool = False


def answer_of(data: bytes) -> Assembled:
    """Raises ValueError where this is no answer of a protocol that is known."""
    protocol = protocol_of(data)
    if protocol is None:
        raise ValueError("the body is no answer of the Messages API, chat completions or Responses")
    start = data.lstrip(b"\xef\xbb\xbf \r\n\t")
    answer = Assembled()
    if start.startswith(b"{"):
        body = msgspec.json.decode(data)
        WHOLE[protocol](answer, mapping(body))
        answer.ended = True
        return answer
    splitter, take = Splitter(), STREAMED[protocol]
    blocks = splitter.feed(data)
    number = 0
    for number, block in enumerate(blocks, 1):
        usual = _USUAL_EVENT.fullmatch(block)
        said = usual[1] if usual is not None else parse_event(block).data
        if said == b"[DONE]":
            answer.ended = True
        elif said:
            _take(answer, take, number, block, said)
    if splitter.pending:
        answer.odd.append(f"after event {number}: the body ends within an event")
    return answer


type Take = Callable[[Assembled, dict[str, Any]], str]
"""Adds an event; returns what is odd about it, or nothing."""


def _take(answer: Assembled, take: Take, number: int, block: bytes, data: bytes) -> None:
    kind = ""
    try:
        body = _decode(data)
        if isinstance(body, dict):
            kind = body.get("type", "")
            odd = take(answer, body)
        else:
            odd = f"not an object: {data[:80]!r}"
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        odd = f"{error}: {data[:80]!r}"
    except (TypeError, ValueError, AttributeError, IndexError, KeyError) as error:
        odd = f"{type(error).__name__}: {error}"
    if odd:
        answer.odd.append(f"event {number} {parse_event(block).name or text_of(kind)}: {odd}")


# the Messages API


def _messages_event(answer: Assembled, body: dict[str, Any]) -> str:
    kind = text_of(body.get("type"))
    if kind == "content_block_delta":
        return _messages_delta(answer, body.get("index"), mapping(body.get("delta")))
    if kind == "message_start":
        message = mapping(body.get("message"))
        answer.head = {name: message[name] for name in ("model", "id") if name in message}
        answer.usage.update(mapping(message.get("usage")))
    elif kind == "content_block_start":
        odd = "" if body.get("index") == len(answer.blocks) else f"index {body.get('index')} out of order"
        answer.blocks.append(AnswerBlock(mapping(body.get("content_block"))))
        return odd
    elif kind == "content_block_stop":
        return "" if _block(answer, body.get("index")) is not None else "stops a block that was not begun"
    elif kind == "message_delta":
        delta = mapping(body.get("delta"))
        answer.stop = text_of(delta.get("stop_reason")) or answer.stop
        counts = mapping(body.get("usage"))
        answer.usage.update({name: count for name, count in counts.items() if count is not None})
    elif kind == "message_stop":
        answer.ended = True
    elif kind == "error":
        answer.errors.append(_error(body))
    elif kind != "ping":
        return f"unknown: {folded(as_json(body))}"
    return ""


def _block(answer: Assembled, index: Any) -> AnswerBlock | None:
    known = isinstance(index, int) and 0 <= index < len(answer.blocks)
    return answer.blocks[index] if known else None


def _messages_delta(answer: Assembled, index: Any, delta: dict[str, Any]) -> str:
    block = _block(answer, index)
    if block is None:
        return f"delta of block {as_json(index)}, which was not begun"
    kind = text_of(delta.get("type"))
    if (name := _GROWN.get(kind)) is not None:
        block.grow(name, delta.get(name))
    elif kind == "input_json_delta":
        block.grow("partial", delta.get("partial_json"))
    elif kind != "citations_delta":
        return f"unknown delta {kind}"
    return ""


def _messages_whole(answer: Assembled, body: dict[str, Any]) -> None:
    if body.get("type") == "error" or "error" in body:
        answer.errors.append(_error(body))
        return
    answer.head = {name: body[name] for name in ("model", "id") if name in body}
    answer.blocks = [AnswerBlock(mapping(block)) for block in items(body.get("content"))]
    answer.stop, answer.usage = text_of(body.get("stop_reason")), mapping(body.get("usage"))


def _error(body: dict[str, Any]) -> str:
    error = body.get("error")
    fields = mapping(error)
    if not fields:
        return text_of(error) or as_json(body)
    kind = text_of(fields.get("type") or fields.get("code"))
    return ": ".join(filter(None, (kind, text_of(fields.get("message"))))) or as_json(fields)


# chat completions


def _chat_event(answer: Assembled, body: dict[str, Any]) -> str:
    if body.get("error"):
        answer.errors.append(_error(body))
        return ""
    answer.head = answer.head or {name: body[name] for name in ("model", "id") if name in body}
    answer.usage.update(mapping(body.get("usage")))
    for entry in items(body.get("choices"))[:1]:
        choice = mapping(entry)
        answer.stop = text_of(choice.get("finish_reason")) or answer.stop
        _chat_delta(answer, mapping(choice.get("delta") or choice.get("message")))
    return ""


def _chat_delta(answer: Assembled, delta: dict[str, Any]) -> None:
    thought = delta.get("reasoning_content") or delta.get("reasoning")
    if thought:
        _more(answer, "thinking", "thinking", text_of(thought))
    content = delta.get("content")
    for part in content if isinstance(content, list) else [content] if content else []:
        _more(answer, "text", "text", text_of(mapping(part).get("text") if isinstance(part, dict) else part))
    for entry in items(delta.get("tool_calls")):
        call = mapping(entry)
        function = mapping(call.get("function"))
        index = call.get("index", len(answer.blocks))
        block = next((one for one in answer.blocks if one.fields.get("call") == index), None)
        if block is None:
            block = AnswerBlock({"type": "tool_use", "call": index, "id": ""})
            answer.blocks.append(block)
        block.fields["id"] = block.fields["id"] or text_of(call.get("id"))
        block.grow("name", function.get("name"))
        block.grow("partial", function.get("arguments"))


def _more(answer: Assembled, kind: str, name: str, text: str) -> None:
    """Text that goes on where the last block is of its kind, and begins one otherwise."""
    if not answer.blocks or answer.blocks[-1].kind != kind:
        answer.blocks.append(AnswerBlock({"type": kind}))
    answer.blocks[-1].grow(name, text)


def _chat_whole(answer: Assembled, body: dict[str, Any]) -> None:
    _chat_event(answer, body)


# Responses


_PIECES = {
    "response.output_text.delta": "message",
    "response.refusal.delta": "message",
    "response.reasoning_summary_text.delta": "reasoning",
    "response.reasoning_text.delta": "reasoning",
    "response.function_call_arguments.delta": "function_call",
    "response.custom_tool_call_input.delta": "custom_tool_call",
}
"""The type of the item to which a piece belongs."""
_RESPONSES_OTHERS = ("keepalive", "codex.rate_limits")
"""Events that tell nothing of the answer."""


def _responses_event(answer: Assembled, body: dict[str, Any]) -> str:
    kind = text_of(body.get("type"))
    if (of := _PIECES.get(kind)) is not None:
        _responses_block(answer, body.get("output_index"), {"type": of}).grow("said", body.get("delta"))
        return ""
    response = mapping(body.get("response"))
    if kind in ("response.created", "response.in_progress", "response.queued"):
        answer.head = {name: response[name] for name in ("model", "id") if name in response} or answer.head
    elif kind == "response.reasoning_summary_part.added" and body.get("summary_index"):
        _responses_block(answer, body.get("output_index"), {"type": "reasoning"}).grow("said", "\n\n")
    elif kind in ("response.output_item.added", "response.output_item.done"):
        item = mapping(body.get("item"))
        _responses_block(answer, body.get("output_index"), item).fields |= item
    elif kind in ("response.completed", "response.incomplete", "response.failed"):
        _responses_end(answer, response, kind)
    elif kind == "error":
        answer.errors.append(_error(body if "error" in body else {"error": body | {"type": None}}))
    elif not kind.startswith("response.") and kind not in _RESPONSES_OTHERS:
        return f"unknown: {folded(as_json(body))}"
    return ""


def _responses_block(answer: Assembled, index: Any, item: dict[str, Any]) -> AnswerBlock:
    """The item with this index, which may also be the first that is told of it."""
    key = index if isinstance(index, int) else as_json(index)
    block = answer.by_index.get(key)
    if block is None or block.kind != item.get("type"):
        block = answer.by_index[key] = AnswerBlock({"type": text_of(item.get("type"))})
        answer.blocks.append(block)
    return block


def _responses_end(answer: Assembled, response: dict[str, Any], kind: str = "") -> None:
    """What the last event tells, or a whole answer."""
    usage = mapping(response.get("usage"))
    for name in ("input_tokens_details", "output_tokens_details"):
        usage = usage | mapping(usage.get(name))
    answer.usage = usage
    reason = text_of(mapping(response.get("incomplete_details")).get("reason"))
    status = text_of(response.get("status")) or kind.removeprefix("response.")
    answer.stop = ": ".join(filter(None, (status, reason)))
    answer.ended = True
    if response.get("error"):
        answer.errors.append(_error(response))
    for index, entry in enumerate(items(response.get("output"))):
        item = mapping(entry)
        if index not in answer.by_index:
            _responses_block(answer, index, item).fields |= item


def _responses_whole(answer: Assembled, body: dict[str, Any]) -> None:
    answer.head = {name: body[name] for name in ("model", "id") if name in body}
    _responses_end(answer, body)


_SAID = {"message": "content", "reasoning": "summary"}
"""Where the text of an item is."""


def _responses_text(block: AnswerBlock) -> Lines:
    """An item; while it is in progress, what came of it."""
    item, said = block.fields, block.grown("said")
    if said and (name := _SAID.get(block.kind)) is not None:
        item = item if items(item.get(name)) else item | {name: [{"text": said}]}
    elif said:
        item = {"arguments": said} | {name: one for name, one in item.items() if one}
    return responses_item(item, 0)


STREAMED: dict[Protocol, Take] = {
    "messages": _messages_event,
    "chat": _chat_event,
    "responses": _responses_event,
}
WHOLE: dict[Protocol, Callable[[Assembled, dict[str, Any]], None]] = {
    "messages": _messages_whole,
    "chat": _chat_whole,
    "responses": _responses_whole,
}


# as text


def answer_text(answer: Assembled, cost: float | None = None) -> Lines:
    for error in answer.errors:
        yield f"Error: {folded(error)}"
    for name, value in answer.head.items():
        yield f"{name}: {text_of(value)}"
    if answer.stop or (answer.ended and not answer.errors):
        yield f"stop reason: {answer.stop or '(none)'}"
    elif not answer.errors:
        yield "(not over)"
    if used := _usage(answer.usage):
        yield f"usage: {used}"
    if cost is not None:
        yield f"cost: ${cost:.4f}"
    for block in answer.blocks:
        yield ""
        yield from _block_text(block, is_item=bool(answer.by_index))
    more = len(answer.odd) - ODD_SHOWN
    lines = answer.odd[:ODD_SHOWN] + ([f"and {more:,} more"] if more > 0 else [])
    yield from section("Odd events", (line for text in lines for line in indented(text)))


def _usage(usage: dict[str, Any]) -> str:
    """`input 492, cache read 17,920, output 391`: counts that are not zero, other names as they came."""
    counts = {COUNTS.get(name, name): count for name, count in usage.items() if isinstance(count, int)}
    return ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)


def _block_text(block: AnswerBlock, *, is_item: bool) -> Lines:
    partial = block.grown("partial")
    if is_item:
        yield from _responses_text(block)
    elif partial and block.kind.endswith("tool_use"):
        yield from indented(f"call {block.grown('name')} {text_of(block.fields.get('id'))}", 0)
        yield from arguments(partial, 1)
    else:
        shown = {name: one for name, one in block.whole().items() if name not in ("partial", "call")}
        yield from messages_block(shown, 0)
