"""Answers as readable text: a stream put together, or one whole message.

`answer_of` takes the body as it is stored, also one that is still coming or was cut. It tells which protocol
an answer is by its first event or by its members, since a client's answer may be another protocol's than the
request's that went upstream.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

from signalbox.anthropic.sse import parse_event
from signalbox.inspect import lenient
from signalbox.inspect.requests import messages_block, responses_item
from signalbox.inspect.text import (
    LONG,
    Fold,
    arguments,
    as_json,
    each,
    folded,
    heading,
    indented,
    items,
    mapping,
    section,
    text_of,
)

type Protocol = Literal["messages", "chat", "responses"]
type Pieces = Iterator[str]

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
MOST_ODD = 5_000
"""Odd events after which no more are looked at."""


SHORTEST_EVENT = 80
"""Bytes of an event, on average, below which not all are looked at: those of providers have more than 100."""
LEAST_EVENTS = 1_000
"""Events that are looked at in any case."""
MOST_BLOCKS = 4_000
"""Blocks, or items, of an answer."""
MOST_COUNTS = 50
"""Counts of tokens in a line."""

_SPACE = b"\xef\xbb\xbf \r\n\t"
_TELLING = re.compile(
    rb"""
    (?<!\\)"type":\s?"(?P<messages>message_start|message|error|ping)"
    | (?:(?<!\\)"type":\s?"|^event:\s?)(?P<responses>response)\.
    | (?<!\\)"object":\s?"(?P<response>response)"
    | (?<!\\)"(?P<chat>chat\.completion|choices)
    """,
    re.VERBOSE | re.MULTILINE,
)
"""What only one protocol has, by the name of its group."""


def protocol_of(data: bytes) -> Protocol | None:
    """Whose answer this is, by its beginning; None where it is none of these."""
    start = data[:PEEK].lstrip(_SPACE)
    if not start.startswith((b"{", b"data:", b"event:", b":")):
        return None
    told = _TELLING.search(start)
    if told is None:
        return None
    return "chat" if told["chat"] else "messages" if told["messages"] else "responses"


_EVENT = re.compile(
    rb"\n*+(?:(?:event: ?[^\n]*+\n)?data: ?([^\n]*+)(?=\n\n|\Z)|[^\n]++(?:\n[^\n]++)*+)",
)
"""An event: its name and one line of data, as nearly every one has, or any other lines."""
_PINGS = frozenset((b'{"type":"ping"}', b'{"type": "ping"}'))
_GROWN = {f"{name}_delta": name for name in ("text", "thinking", "signature")}


class AnswerBlock:
    """A block of content in the form of the Messages API, whose texts grow piece by piece."""

    __slots__ = ("_grown", "fields")

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
    calls: dict[Any, AnswerBlock] = field(default_factory=dict)
    """The calls of a chat completion by their `index`."""
    odd_events: int = 0
    """How many do not fit."""
    odd: list[str] = field(default_factory=list)
    """The first of them in words, and how the body ends."""
    ended: bool = False

    def begin(self, fields: dict[str, Any]) -> AnswerBlock:
        """A block after the others. Raises ValueError where there are too many."""
        if len(self.blocks) >= MOST_BLOCKS:
            raise ValueError(f"begins more than {MOST_BLOCKS:,} blocks")
        block = AnswerBlock(fields)
        self.blocks.append(block)
        return block


def answer_of(data: bytes, protocol: Protocol | None = None) -> Assembled:
    """`protocol` is that of an answer which does not tell its own. Raises ValueError where this is no answer
    of a protocol that is known, and RecursionError."""
    protocol = protocol_of(data) or protocol
    if protocol is None:
        raise ValueError("the body is no answer of the Messages API, chat completions or Responses")
    start = data.lstrip(_SPACE)
    answer = Assembled()
    if not start.startswith(b"{"):
        _put_together(answer, STREAMED[protocol], start)
        return answer
    try:
        body = lenient.decode(start)
        answer.ended = True
    except ValueError:
        body = lenient.decode_cut(start)
    WHOLE[protocol](answer, mapping(body))
    return answer


type Take = Callable[[Assembled, dict[str, Any]], str]
"""Adds an event; returns what is odd about it, or nothing."""


def _put_together(answer: Assembled, take: Take, data: bytes) -> None:
    """The events of a stream, for any line ends. Of very many short ones only the first are looked at."""
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    events = data.rstrip(b"\n")
    is_whole, most = data.endswith(b"\n\n"), LEAST_EVENTS + len(data) // SHORTEST_EVENT
    end = 0
    for number, found in enumerate(_EVENT.finditer(events), 1):
        if found.end() == len(events) and not is_whole:
            answer.odd.append(f"after event {number - 1}: the body ends within an event")
            break
        if number > most or answer.odd_events > MOST_ODD:
            left_out = events.count(b"\n\n", end)
            answer.odd.append(f"after event {number - 1}: about {left_out:,} more, which are not looked at")
            break
        end, block = found.end(), found[0]
        said = found[1]
        if said is None:
            said = parse_event(block).data
        if said == b"[DONE]":
            answer.ended = True
        elif said and said not in _PINGS:
            _take(answer, take, number, block, said)


def _take(answer: Assembled, take: Take, number: int, block: bytes, data: bytes) -> None:
    kind = ""
    try:
        body = lenient.decode(data)
        if type(body) is dict:
            kind = body.get("type", "")
            odd = take(answer, body)
        else:
            odd = f"not an object: {data[:80]!r}"
    except lenient.UNREADABLE as error:
        odd = f"{error}: {data[:80]!r}"
    except (TypeError, AttributeError, LookupError) as error:
        odd = f"{type(error).__name__}: {error}"
    if odd:
        answer.odd_events += 1
        if answer.odd_events <= ODD_SHOWN:
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
        answer.begin(mapping(body.get("content_block")))
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
    if not answer.head:
        answer.head = {name: body[name] for name in ("model", "id") if name in body}
    if usage := body.get("usage"):
        answer.usage.update(mapping(usage))
    if choices := items(body.get("choices")):
        choice = mapping(choices[0])
        if reason := choice.get("finish_reason"):
            answer.stop = text_of(reason)
        _chat_delta(answer, mapping(choice.get("delta") or choice.get("message")))
    return ""


def _chat_delta(answer: Assembled, delta: dict[str, Any]) -> None:
    thought = delta.get("reasoning_content") or delta.get("reasoning")
    if thought:
        _more(answer, "thinking", "thinking", text_of(thought))
    content = delta.get("content")
    if isinstance(content, list):
        for part in content:
            _more(answer, "text", "text", text_of(part.get("text") if isinstance(part, dict) else part))
    elif content:
        _more(answer, "text", "text", text_of(content))
    if calls := delta.get("tool_calls"):
        for entry in items(calls):
            _chat_call(answer, mapping(entry))


def _chat_call(answer: Assembled, call: dict[str, Any]) -> None:
    function, index = mapping(call.get("function")), call.get("index", len(answer.blocks))
    key = index if isinstance(index, int) else as_json(index)
    if (block := answer.calls.get(key)) is None:
        block = answer.calls[key] = answer.begin({"type": "tool_use"})
    if id := call.get("id"):
        block.fields.setdefault("id", id)
    for name, text in (("name", function.get("name")), ("partial", function.get("arguments"))):
        if text:
            block.grow(name, text)


def _more(answer: Assembled, kind: str, name: str, text: str) -> None:
    """Text that goes on where the last block is of its kind, and begins one otherwise."""
    last = answer.blocks[-1] if answer.blocks else None
    if last is None or last.fields["type"] != kind:
        last = answer.begin({"type": kind})
    last.grow(name, text)


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
        block = answer.by_index[key] = answer.begin({"type": text_of(item.get("type"))})
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
    for index, entry in enumerate(items(response.get("output"))[:MOST_BLOCKS]):
        item = mapping(entry)
        if index not in answer.by_index:
            _responses_block(answer, index, item).fields |= item


def _responses_whole(answer: Assembled, body: dict[str, Any]) -> None:
    answer.head = {name: body[name] for name in ("model", "id") if name in body}
    _responses_end(answer, body)


_SAID = {"message": "content", "reasoning": "summary"}
"""Where the text of an item is."""


def _responses_text(block: AnswerBlock, fold: Fold) -> Pieces:
    """An item; while it is in progress, what came of it."""
    item, said = block.fields, block.grown("said")
    if said and (name := _SAID.get(block.kind)) is not None:
        item = item if items(item.get(name)) else item | {name: [{"text": said}]}
    elif said:
        item = {"arguments": said} | {name: one for name, one in item.items() if one}
    return responses_item(item, fold, 0)


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


def answer_text(answer: Assembled, cost: float | None = None, fold: Fold = LONG) -> Pieces:
    yield from each(answer.errors, lambda error: [f"Error: {folded(error, fold)}"], "errors", depth=0)
    for name, value in answer.head.items():
        yield f"{name}: {folded(text_of(value))}"
    if answer.stop or (answer.ended and not answer.errors):
        yield f"stop reason: {answer.stop or '(none)'}"
    elif not answer.errors:
        yield "(not over)"
    if used := _usage(answer.usage):
        yield f"usage: {used}"
    if cost is not None:
        yield f"cost: ${cost:.4f}"
    is_item = bool(answer.by_index)
    yield from each(answer.blocks, lambda one: _block_text(one, fold, is_item=is_item), "blocks", depth=0)
    more = answer.odd_events - ODD_SHOWN
    pieces = answer.odd + ([f"{more:,} more odd events"] if more > 0 else [])
    yield from section("Odd events", map(indented, pieces))


def _usage(usage: dict[str, Any]) -> str:
    """`input 492, cache read 17,920, output 391`: counts that are not zero, other names as they came."""
    counts = ((name, count) for name, count in usage.items() if isinstance(count, int) and count)
    named = {COUNTS.get(name, name): count for name, count in islice(counts, MOST_COUNTS)}
    return ", ".join(f"{name} {count:,}" for name, count in named.items())


def _block_text(block: AnswerBlock, fold: Fold, *, is_item: bool) -> Pieces:
    yield ""
    partial = block.grown("partial")
    if is_item:
        yield from _responses_text(block, fold)
    elif partial and block.kind.endswith("tool_use"):
        yield heading(f"call {block.grown('name')} {text_of(block.fields.get('id'))}", 0)
        yield from arguments(partial, 1, fold)
    else:
        shown = {name: one for name, one in block.whole().items() if name != "partial"}
        yield from messages_block(shown, fold, 0)
