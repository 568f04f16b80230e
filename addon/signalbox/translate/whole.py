"""A message that is not streamed, put together from the events of one that is."""

from collections.abc import Iterable
from typing import Any

import msgspec

from signalbox.translate.writer import Event


class Message:
    def __init__(self) -> None:
        self._message: dict[str, Any] = {}
        self._pieces: list[str] = []
        """Of the text, the thinking or the arguments of the block that is open."""

    def add(self, events: Iterable[Event]) -> None:
        for event in events:
            self._take(event)

    def encoded(self) -> bytes:
        """The message, or the error that came instead."""
        return msgspec.json.encode(self._message)

    def _take(self, event: Event) -> None:
        match event["type"]:
            case "message_start":
                self._message = event["message"] | {"content": []}
            case "content_block_start":
                self._message["content"].append(event["content_block"])
            case "content_block_delta":
                self._add(event["delta"])
            case "content_block_stop":
                self._close(self._message["content"][-1])
            case "message_delta":
                self._message |= event["delta"]
                self._message["usage"] = self._message["usage"] | event["usage"]
            case "error":
                self._message = event

    def _add(self, delta: dict[str, str]) -> None:
        if delta["type"] == "signature_delta":
            self._message["content"][-1]["signature"] = delta["signature"]
        else:
            self._pieces.append(next(text for name, text in delta.items() if name != "type"))

    def _close(self, block: dict[str, Any]) -> None:
        text = "".join(self._pieces)
        self._pieces.clear()
        if block["type"] == "tool_use":
            block["input"] = _input(text)
        else:
            block[block["type"]] = text


def _input(arguments: str) -> object:
    """As they were written; none of those that are cut."""
    try:
        msgspec.json.decode(arguments, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return {}
    return msgspec.Raw(arguments.encode())
