"""Answers of fake providers, in each protocol, piece by piece."""

import json
from collections.abc import Mapping
from typing import Any, Literal, Protocol

type Usage = Mapping[str, int]

MESSAGES_USAGE = {"input_tokens": 1000, "output_tokens": 20}
CHAT_USAGE = {"prompt_tokens": 1000, "completion_tokens": 20, "total_tokens": 1020}


class FakeAnswer(Protocol):
    """One answer of a model. Each method gives the bytes of what it is called for."""

    def begin(self) -> bytes:
        """What comes in a stream before the first words."""
        ...

    def text(self, words: str) -> bytes: ...
    def thinking(self, words: str) -> bytes: ...
    def ping(self) -> bytes: ...
    def end(self) -> bytes: ...

    def error(self, type: str, message: str, code: str) -> bytes:
        """An error within a stream."""
        ...

    def whole(self, text: str) -> bytes:
        """The whole answer, not streamed."""
        ...

    def refusal(self, type: str, message: str, code: str) -> bytes:
        """The body of an answer with the status of an error."""
        ...


class MessagesAnswer:
    """Anthropic's Messages."""

    def __init__(
        self,
        model: str,
        usage: Usage = MESSAGES_USAGE,
        reports: Literal["early", "late"] = "early",
    ) -> None:
        """`reports`: whether a stream reports its input tokens at its start, as Anthropic does, or at its
        end."""
        self._usage = usage
        self._early = usage if reports == "early" else dict.fromkeys(usage, 0)
        self._model = model
        self._index = -1
        self._block = ""

    def begin(self) -> bytes:
        message = self._message([], {**self._early, "output_tokens": 0})
        return event({"type": "message_start", "message": message})

    def text(self, words: str) -> bytes:
        return self._delta("text", {"type": "text_delta", "text": words})

    def thinking(self, words: str) -> bytes:
        return self._delta("thinking", {"type": "thinking_delta", "thinking": words})

    def ping(self) -> bytes:
        return event({"type": "ping"})

    def end(self) -> bytes:
        delta = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": dict(self._usage)}
        return self._stop() + event(delta) + event({"type": "message_stop"})

    def error(self, type: str, message: str, code: str) -> bytes:
        return b"event: error\ndata: " + self.refusal(type, message, code) + b"\n\n"

    def whole(self, text: str) -> bytes:
        message = self._message([{"type": "text", "text": text}], dict(self._usage))
        return json.dumps({**message, "stop_reason": "end_turn"}).encode()

    def refusal(self, type: str, message: str, code: str) -> bytes:
        error = {"type": type, "message": message, **({"code": code} if code else {})}
        return json.dumps({"type": "error", "error": error}).encode()

    def _message(self, content: list[Any], usage: Usage) -> dict[str, Any]:
        return {
            "id": "msg_fake",
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": content,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": dict(usage),
        }

    def _delta(self, kind: str, delta: dict[str, Any]) -> bytes:
        opened = b""
        if kind != self._block:
            opened = self._stop()
            self._index, self._block = self._index + 1, kind
            start = {"type": kind, kind: ""}
            opened += event({"type": "content_block_start", "index": self._index, "content_block": start})
        return opened + event({"type": "content_block_delta", "index": self._index, "delta": delta})

    def _stop(self) -> bytes:
        if not self._block:
            return b""
        signature = {"type": "signature_delta", "signature": "ZmFrZQ=="}
        signed = {"type": "content_block_delta", "index": self._index, "delta": signature}
        before = event(signed) if self._block == "thinking" else b""
        self._block = ""
        return before + event({"type": "content_block_stop", "index": self._index})


class ChatAnswer:
    """OpenAI's chat completions."""

    def __init__(self, model: str, usage: Usage = CHAT_USAGE) -> None:
        self._usage = usage
        self._head = {"id": "chatcmpl-fake", "object": "chat.completion.chunk", "created": 0, "model": model}

    def begin(self) -> bytes:
        return self._chunk({"role": "assistant", "content": ""})

    def text(self, words: str) -> bytes:
        return self._chunk({"content": words})

    def thinking(self, words: str) -> bytes:
        return self._chunk({"reasoning_content": words})

    def ping(self) -> bytes:
        return b": ping\n\n"

    def end(self) -> bytes:
        last = {**self._head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        return data({**last, "usage": dict(self._usage)}) + b"data: [DONE]\n\n"

    def error(self, type: str, message: str, code: str) -> bytes:
        return b"data: " + self.refusal(type, message, code) + b"\n\n"

    def whole(self, text: str) -> bytes:
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        whole = {**self._head, "object": "chat.completion", "choices": [choice], "usage": dict(self._usage)}
        return json.dumps(whole).encode()

    def refusal(self, type: str, message: str, code: str) -> bytes:
        return json.dumps({"error": {"message": message, "type": type, "code": code or None}}).encode()

    def _chunk(self, delta: dict[str, Any]) -> bytes:
        return data({**self._head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})


class ResponsesAnswer:
    """OpenAI's Responses: one message of one text."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._number = -1
        self._said = ""

    def begin(self) -> bytes:
        created = {"type": "response.created", "response": self._response("in_progress", [])}
        item = {**self._item(""), "status": "in_progress", "content": []}
        return self._event(created) + self._event(
            {"type": "response.output_item.added", "output_index": 0, "item": item}
        )

    def text(self, words: str) -> bytes:
        place = {"item_id": "msg_fake", "output_index": 0, "content_index": 0}
        opened = b""
        if not self._said:
            part = {"type": "output_text", "text": "", "annotations": []}
            opened = self._event({"type": "response.content_part.added", **place, "part": part})
        self._said += words
        return opened + self._event({"type": "response.output_text.delta", **place, "delta": words})

    def thinking(self, words: str) -> bytes:
        return b""

    def ping(self) -> bytes:
        return b": ping\n\n"

    def end(self) -> bytes:
        item = self._item(self._said)
        done = {"type": "response.output_item.done", "output_index": 0, "item": item}
        completed = {"type": "response.completed", "response": self._response("completed", [item])}
        return self._event(done) + self._event(completed)

    def error(self, type: str, message: str, code: str) -> bytes:
        error = {"code": code or type, "message": message}
        failed = {**self._response("failed", []), "error": error}
        return self._event({"type": "response.failed", "response": failed})

    def whole(self, text: str) -> bytes:
        return json.dumps(self._response("completed", [self._item(text)])).encode()

    def refusal(self, type: str, message: str, code: str) -> bytes:
        return json.dumps({"error": {"message": message, "type": type, "code": code or None}}).encode()

    def _item(self, text: str) -> dict[str, Any]:
        part = {"type": "output_text", "text": text, "annotations": []}
        return {
            "id": "msg_fake",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [part],
        }

    def _response(self, status: str, output: list[Any]) -> dict[str, Any]:
        details = {
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        }
        usage = {"input_tokens": 1000, "output_tokens": 20, "total_tokens": 1020, **details}
        return {
            "id": "resp_fake",
            "object": "response",
            "created_at": 0,
            "model": self._model,
            "status": status,
            "output": output,
            "error": None,
            "incomplete_details": None,
            "usage": usage if status == "completed" else None,
        }

    def _event(self, content: dict[str, Any]) -> bytes:
        self._number += 1
        return event({**content, "sequence_number": self._number})


def event(content: dict[str, Any]) -> bytes:
    """A server-sent event that is named by its type."""
    return f"event: {content['type']}\n".encode() + data(content)


def data(content: dict[str, Any]) -> bytes:
    """A server-sent event without a name."""
    return b"data: " + json.dumps(content).encode() + b"\n\n"
