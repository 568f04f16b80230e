"""Writes Anthropic's events and messages.

The order of a stream: `message_start`; blocks with consecutive indices, one open at a time; `message_delta`
and `message_stop`. An `error` may come at any time. Nothing follows `message_stop` or `error`
(anthropic-messages.md, 6).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from signalbox.anthropic.answer_facts import AnswerFacts
from signalbox.anthropic.api import TOKEN_FIELDS
from signalbox.anthropic.issued import MOST, ThinkingBlock

type MessagesEvent = dict[str, Any]

EVENTS = "text/event-stream; charset=utf-8"
JSON = "application/json"
LARGEST = 64 * 1024 * 1024
"""Bytes or characters of the largest answer that is collected or translated."""

_encoder = msgspec.json.Encoder()
_NO_USAGE = {
    "input_tokens": 0,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "output_tokens": 0,
}


def encode_events(events: list[MessagesEvent]) -> bytes:
    """The events as server-sent events. Each has an `event:` line, since clients ignore those without."""
    return b"".join(
        b"event: %b\ndata: %b\n\n" % (event["type"].encode(), _encoder.encode(event)) for event in events
    )


def web_search_result(url: str, title: str) -> MessagesEvent:
    """One result of a search. Claude Code reads its title and URL only (claude-code-tried.md, 5)."""
    title = title or url.partition("://")[2].partition("/")[0] or url
    found = {"title": title, "url": url, "page_age": None, "encrypted_content": ""}
    return {"type": "web_search_result", **found}


class Writer:
    """Writes a legal stream, whatever the order of calls, and fills `facts` like a reader of that stream."""

    def __init__(
        self,
        id: str,
        model: str,
        sign: Callable[[str], str],
        *,
        facts: AnswerFacts | None = None,
        key: bytes | None = None,
        response_model: str | None = None,
        estimate: Callable[[], int] | None = None,
    ) -> None:
        """The message names `response_model` if given, else the model given to `begin`, else `model`. `sign`
        makes the signature of a thinking block from its text. `estimate` gives the input tokens for
        `message_start`, and for a provider that reports none. `key` is the key for digests of thinking
        blocks; None digests none."""
        self.blocks = 0
        """The number of blocks begun so far."""
        self.calls = 0
        """The number of tool calls among them."""
        self.open = ""
        """The type of the open block."""
        self.begun = False
        """Whether the message has been started."""
        self._id = id
        self._model = model
        self._response_model = response_model
        self._estimate = estimate
        self._sign = sign
        self._facts = AnswerFacts() if facts is None else facts
        self._key = key
        self._events: list[MessagesEvent] = []
        self._ended = False
        self._blank = ""
        """White space that a text block would begin with; not written unless more text follows, since
        Anthropic refuses blank texts (translation.md, 2)."""
        self._thought: list[str] = []
        self._unseen: list[str] = []
        """Signatures of thinking without text that comes before the next block."""

    def drain(self) -> list[MessagesEvent]:
        """The events written since the last call."""
        events, self._events = self._events, []
        return events

    def named(self, model: str) -> None:
        """Sets the model as the provider names it, for a message that is not begun."""
        self._model = model

    def begin(self, model: str = "") -> None:
        if self.begun or self._ended:
            return
        self.begun = True
        usage = _NO_USAGE if self._estimate is None else _NO_USAGE | {"input_tokens": self._estimate()}
        message: MessagesEvent = {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": model or self._model if self._response_model is None else self._response_model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }
        self._events.append({"type": "message_start", "message": message})
        self._facts.is_stream = True
        self._facts.message_id = self._id

    def text(self, text: str) -> None:
        if self.open != "text":
            text = self._blank + text
            if not text.strip():
                self._blank = text
                return
            self._start({"type": "text", "text": ""})
        if text:
            self._delta({"type": "text_delta", "text": text})

    def thinking(self, text: str) -> None:
        if self.open != "thinking":
            self._start({"type": "thinking", "thinking": "", "signature": ""})
        if text:
            self._thought.append(text)
            self._delta({"type": "thinking_delta", "thinking": text})

    def unseen_thinking(self, signature: str) -> None:
        """Adds thinking without text before the next block; alone it would be no answer."""
        self.close()
        self._unseen.append(signature)

    def cite(self, citation: MessagesEvent) -> None:
        """Adds a citation to the open text."""
        if self.open == "text":
            self._delta({"type": "citations_delta", "citation": citation})

    def search(self, id: str, input: Mapping[str, Any]) -> None:
        """Writes the call of a web search that the provider runs itself."""
        self._start({"type": "server_tool_use", "id": id, "name": "web_search", "input": {}})
        self._delta({"type": "input_json_delta", "partial_json": _encoder.encode(input).decode()})
        self.close()

    def search_result(self, id: str, content: list[Any] | dict[str, Any]) -> None:
        """Writes the results of that search, or its error."""
        self._start({"type": "web_search_tool_result", "tool_use_id": id, "content": content})
        self.close()

    def call(self, id: str, name: str) -> None:
        self.calls += 1
        self._start({"type": "tool_use", "id": id, "name": name, "input": {}})

    def arguments(self, text: str) -> None:
        """Adds to the arguments of the open call."""
        if text and self.open == "tool_use":
            self._delta({"type": "input_json_delta", "partial_json": text})

    def close(self) -> None:
        """Ends the open block, if there is one."""
        self._blank = ""
        if not self.open:
            return
        signature = self._sign("".join(self._thought)) if self.open == "thinking" else ""
        self._thought.clear()
        self._sign_and_close(signature)

    def _sign_and_close(self, signature: str) -> None:
        if signature:
            self._delta({"type": "signature_delta", "signature": signature})
        self.open = ""
        is_written = self._write({"type": "content_block_stop", "index": self.blocks - 1})
        if signature and is_written:
            self._note_issued(ThinkingBlock("thinking", signature=signature))

    def stop(
        self, reason: str, usage: Mapping[str, Any], sequence: str | None = None, *, characters: int = 0
    ) -> None:
        """Ends the message. `sequence` is the stop sequence that ended it.

        Tokens that `usage` does not count are estimated for the client, whose context they fill
        (translation.md, 5), and not noted in `facts`. `characters` are those of the whole answer.
        """
        self.close()
        delta = {"stop_reason": reason, "stop_sequence": sequence}
        shown = {**usage, **self._estimates(usage, characters)}
        if self._write({"type": "message_delta", "delta": delta, "usage": shown}):
            self._facts.began = self._facts.stopped = True
            self._facts.usage.take(usage)
        if self._write({"type": "message_stop"}):
            self._facts.complete = True
        self._ended = True

    def _estimates(self, usage: Mapping[str, Any], characters: int) -> dict[str, int]:
        """The counts that `usage` lacks, besides those that `message_start` has."""
        estimated = {}
        inputs = [usage[name] for name in TOKEN_FIELDS if name in usage and name != "output_tokens"]
        if inputs and not any(inputs) and self._estimate is not None:
            estimated["input_tokens"] = self._estimate()
        if not usage.get("output_tokens"):
            estimated["output_tokens"] = -(-characters // 4)
        return estimated

    def error(self, type: str, message: str, request_id: str) -> None:
        if not self._ended:
            error = {"type": type, "message": message}
            self._events.append({"type": "error", "error": error, "request_id": request_id})
            self._facts.is_stream = True
            self._facts.error = type, message
            self._ended = True

    def _start(self, block: MessagesEvent) -> None:
        self.close()
        unseen, self._unseen = self._unseen, []
        for signature in unseen:
            self._open({"type": "thinking", "thinking": "", "signature": ""})
            self._sign_and_close(signature)
        self._open(block)

    def _open(self, block: MessagesEvent) -> None:
        self.open = block["type"]
        is_written = self._write(
            {"type": "content_block_start", "index": self.blocks, "content_block": block}
        )
        self._facts.began = self._facts.began or (is_written and self.open.endswith("tool_use"))
        self.blocks += 1

    def _delta(self, delta: MessagesEvent) -> None:
        if self._write({"type": "content_block_delta", "index": self.blocks - 1, "delta": delta}):
            self._facts.began = True

    def _write(self, event: MessagesEvent) -> bool:
        """Adds an event, unless the stream has ended. Returns whether it was added."""
        self.begin()
        if not self._ended:
            self._events.append(event)
        return not self._ended

    def _note_issued(self, block: ThinkingBlock) -> None:
        if self._key is not None and len(self._facts.issued) < MOST:
            digest = block.digest(self._key)
            self._facts.issued += [] if digest is None else [digest]


_ABOUT_MESSAGE = frozenset({"id", "type", "role", "model", "content", "container", "usage"})
"""Fields of `message_start`; the others come with `message_delta` (anthropic-messages.md, 6)."""
_OF_DELTA = frozenset({"stop_reason", "stop_sequence", "stop_details"})
_STREAMED = {"text": "text_delta", "thinking": "thinking_delta"}


class MessageBuilder:
    """Builds a message from the events of its stream."""

    def __init__(self) -> None:
        self.ended = False
        """True once the last event has come."""
        self._message: dict[str, Any] = {}
        self._block: dict[str, Any] | None = None
        """The open block."""
        self._pieces: list[str] = []
        """Pieces of its text, thinking or arguments."""

    @property
    def stopped(self) -> bool:
        """Whether a stop reason has come."""
        return bool(self._message.get("stop_reason"))

    def add(self, events: Iterable[MessagesEvent]) -> None:
        """Adds events. Raises KeyError, TypeError or AssertionError for events that are not Anthropic's."""
        for event in events:
            self._take(event)

    def fill(self, facts: AnswerFacts, key: bytes | None) -> None:
        """Fills `facts` from the message, without its usage, or from the error that came instead."""
        self._close()
        facts.complete = True
        if self._message.get("type") == "error":
            error = self._message["error"]
            facts.error = error["type"], error["message"]
            return
        facts.began, facts.stopped = True, self.stopped
        facts.message_id = self._message.get("id") or ""
        if key is not None:
            digests = (
                ThinkingBlock("thinking", block["thinking"], block["signature"]).digest(key)
                for block in self._message["content"]
                if block["type"] == "thinking"
            )
            facts.issued += [digest for digest in digests if digest is not None][:MOST]

    def encoded(self) -> bytes:
        """The message, or the error that came instead."""
        self._close()
        return msgspec.json.encode(self._message)

    def _take(self, event: MessagesEvent) -> None:
        match event["type"]:
            case "message_start":
                self._message = event["message"] | {"content": []}
            case "content_block_start":
                self._close()
                self._block = event["content_block"]
                self._message["content"].append(self._block)
            case "content_block_delta":
                self._add(event["delta"])
            case "content_block_stop":
                self._close()
            case "message_delta":
                reported = {
                    name: value for name, value in (event.get("usage") or {}).items() if value is not None
                }
                more = {name: event[name] for name in event.keys() - {"type", "delta", "usage"}}
                usage = (self._message.get("usage") or {}) | reported
                self._message |= more | (event.get("delta") or {}) | {"usage": usage}
            case "message_stop":
                self.ended = True
            case "error":
                self._block, self._message = None, event

    def _add(self, delta: dict[str, Any]) -> None:
        assert self._block is not None
        match delta["type"]:
            case "signature_delta":
                self._block["signature"] = delta["signature"]
            case "citations_delta":
                self._block["citations"] = [*(self._block.get("citations") or ()), delta["citation"]]
            case "text_delta" | "thinking_delta" | "input_json_delta":
                self._pieces.append(next(text for name, text in delta.items() if name != "type"))
            case "compaction_delta":
                self._block |= {name: value for name, value in delta.items() if name != "type"}

    def _close(self) -> None:
        block, text = self._block, "".join(self._pieces)
        self._block = None
        self._pieces.clear()
        if block is None or not text:
            return
        if "input" in block:
            block["input"] = _input(text)
        elif block["type"] in _STREAMED:
            block[block["type"]] = (block.get(block["type"]) or "") + text


def _input(arguments: str) -> object:
    """The arguments as written; `{}` if they are cut short."""
    try:
        msgspec.json.decode(arguments, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return {}
    return msgspec.Raw(arguments.encode())


def events_of(message: dict[str, Any]) -> Iterator[MessagesEvent]:
    """The events of a stream that give this message. Raises KeyError or TypeError for any other object."""
    usage = message.get("usage") or {}
    start = {name: value for name, value in message.items() if name in _ABOUT_MESSAGE}
    start |= {"content": [], "stop_reason": None, "stop_sequence": None}
    yield {"type": "message_start", "message": start}
    for index, block in enumerate(message["content"]):
        opening, deltas = _parts(block)
        yield {"type": "content_block_start", "index": index, "content_block": opening}
        yield from ({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas)
        yield {"type": "content_block_stop", "index": index}
    delta = {"stop_sequence": None} | {n: value for n, value in message.items() if n in _OF_DELTA}
    more = {n: value for n, value in message.items() if n not in _ABOUT_MESSAGE | _OF_DELTA}
    yield more | {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 0} | usage}
    yield {"type": "message_stop"}


def _parts(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A block as `content_block_start` has it, and its deltas. Blocks of other types have no deltas."""
    kind = block["type"]
    if kind in _STREAMED:
        deltas = [{"type": _STREAMED[kind], kind: block[kind]}] if block.get(kind) else []
        if citations := block.get("citations"):
            deltas += [{"type": "citations_delta", "citation": citation} for citation in citations]
        if kind == "thinking" and block.get("signature"):
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        emptied = {name: [] if name == "citations" else "" for name in (kind, "citations") if name in block}
        return block | emptied | ({"signature": ""} if "signature" in block else {}), deltas
    if "input" in block:
        arguments = msgspec.json.encode(block["input"]).decode()
        return block | {"input": {}}, [{"type": "input_json_delta", "partial_json": arguments}]
    return block, []


def warmed_up(model: str, input_tokens: int, *, seed: str, stream: bool) -> tuple[bytes, str]:
    """The answer to a request that only warms the cache (`max_tokens: 0`), which other protocols cannot
    express: a message without content, and its content type (translation.md, 1)."""
    writer = Writer(f"msg_{seed}", model, lambda _: "")
    writer.begin()
    writer.stop("max_tokens", {"input_tokens": input_tokens, "output_tokens": 0})
    events = writer.drain()
    if stream:
        return encode_events(events), EVENTS
    message = MessageBuilder()
    message.add(events)
    return message.encoded(), JSON
