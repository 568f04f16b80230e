"""A message as a whole and as a stream: put together from the events of one, and told in them."""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from signalbox.translate.writer import Event

_ABOUT_MESSAGE = frozenset({"id", "type", "role", "model", "content", "container", "usage"})
"""Fields that `message_start` tells; the others come with `message_delta` (anthropic-messages.md, 6)."""
_OF_DELTA = frozenset({"stop_reason", "stop_sequence", "stop_details"})
_STREAMED = {"text": "text_delta", "thinking": "thinking_delta"}


class Message:
    """Put together from the events of its stream."""

    def __init__(self) -> None:
        self.ended = False
        """Whether it is whole: its last event came."""
        self._message: dict[str, Any] = {}
        self._block: dict[str, Any] | None = None
        """The one that is open."""
        self._pieces: list[str] = []
        """Of its text, thinking or arguments."""

    @property
    def stopped(self) -> bool:
        """Whether it was told why the message ends."""
        return bool(self._message.get("stop_reason"))

    def add(self, events: Iterable[Event]) -> None:
        """Raises KeyError and the like for events that are none of Anthropic's."""
        for event in events:
            self._take(event)

    def encoded(self) -> bytes:
        """The message, or the error that came instead."""
        self._close()
        return msgspec.json.encode(self._message)

    def _take(self, event: Event) -> None:
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
                told = {
                    name: value for name, value in (event.get("usage") or {}).items() if value is not None
                }
                more = {name: event[name] for name in event.keys() - {"type", "delta", "usage"}}
                usage = (self._message.get("usage") or {}) | told
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
    """As they were written; none of those that are cut."""
    try:
        msgspec.json.decode(arguments, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return {}
    return msgspec.Raw(arguments.encode())


def events_of(message: dict[str, Any]) -> Iterator[Event]:
    """The events of a stream that add up to this message. Raises KeyError and the like where it is none."""
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
    """A block as it starts, and its deltas; blocks of other types come whole."""
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
