"""Anthropic's events, in the one order that they may have.

`message_start`, then blocks with contiguous indices of which one is open at a time, then one
`message_delta` and `message_stop`, or `error` at any time; nothing after either (anthropic-messages.md, 6).
"""

from collections.abc import Callable
from typing import Any

import msgspec

type Event = dict[str, Any]

_encoder = msgspec.json.Encoder()
_NOTHING = {
    "input_tokens": 0,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "output_tokens": 0,
}


def encode(events: list[Event]) -> bytes:
    """As server-sent events: clients pass over what has no `event:` line."""
    return b"".join(
        b"event: %b\ndata: %b\n\n" % (event["type"].encode(), _encoder.encode(event)) for event in events
    )


class Writer:
    """Whatever is called, in whatever order, makes a legal stream."""

    def __init__(self, id: str, model: str, sign: Callable[[str], str]) -> None:
        """`model` is named where `begin` names none; `sign` gives the signature of a block of thinking, of
        which it gets the text."""
        self.blocks = 0
        """Begun so far."""
        self.calls = 0
        """How many of them are tool calls."""
        self.open = ""
        """The type of the open block."""
        self._id = id
        self._model = model
        self._sign = sign
        self._events: list[Event] = []
        self.begun = False
        """Whether the message has been started."""
        self._ended = False
        self._thought: list[str] = []

    def taken(self) -> list[Event]:
        """What was written since the last time."""
        events, self._events = self._events, []
        return events

    def begin(self, model: str = "") -> None:
        if self.begun or self._ended:
            return
        self.begun = True
        message: Event = {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": model or self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _NOTHING,
        }
        self._events.append({"type": "message_start", "message": message})

    def text(self, text: str) -> None:
        if self.open != "text":
            self._start({"type": "text", "text": ""})
        self._delta({"type": "text_delta", "text": text})

    def thinking(self, text: str) -> None:
        if self.open != "thinking":
            self._start({"type": "thinking", "thinking": "", "signature": ""})
        if text:
            self._thought.append(text)
            self._delta({"type": "thinking_delta", "thinking": text})

    def call(self, id: str, name: str) -> None:
        self.calls += 1
        self._start({"type": "tool_use", "id": id, "name": name, "input": {}})

    def arguments(self, text: str) -> None:
        """Of the call that is open."""
        if text and self.open == "tool_use":
            self._delta({"type": "input_json_delta", "partial_json": text})

    def close(self) -> None:
        """The open block, if any."""
        if self.open == "thinking":
            self._delta({"type": "signature_delta", "signature": self._sign("".join(self._thought))})
            self._thought.clear()
        if self.open:
            self.open = ""
            self._write({"type": "content_block_stop", "index": self.blocks - 1})

    def stop(self, reason: str, usage: dict[str, int], sequence: str | None = None) -> None:
        """`sequence` is the stop sequence that was met."""
        self.close()
        delta = {"stop_reason": reason, "stop_sequence": sequence}
        self._write({"type": "message_delta", "delta": delta, "usage": usage})
        self._write({"type": "message_stop"})
        self._ended = True

    def error(self, type: str, message: str, request_id: str) -> None:
        if not self._ended:
            error = {"type": type, "message": message}
            self._events.append({"type": "error", "error": error, "request_id": request_id})
            self._ended = True

    def _start(self, block: Event) -> None:
        self.close()
        self.open = block["type"]
        self._write({"type": "content_block_start", "index": self.blocks, "content_block": block})
        self.blocks += 1

    def _delta(self, delta: Event) -> None:
        self._write({"type": "content_block_delta", "index": self.blocks - 1, "delta": delta})

    def _write(self, event: Event) -> None:
        self.begin()
        if not self._ended:
            self._events.append(event)
