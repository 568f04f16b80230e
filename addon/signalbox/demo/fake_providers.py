"""Fake providers on loopback: Anthropic's format, and chat completions. They record what they receive."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Literal, Self

PAUSE = 0.06
"""Seconds between two words of a stream."""

OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}

type TokenCounts = dict[str, int]


@dataclass(frozen=True)
class ReceivedRequest:
    """One request at a fake provider. Header names are in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def credentials(self) -> list[str]:
        return [self.headers[name] for name in ("authorization", "x-api-key") if name in self.headers]


class FakeProvider(ThreadingHTTPServer):
    """Answers every message with `text`. A context manager: serves inside the `with` block."""

    def __init__(self, text: str, usage: TokenCounts, reports: Literal["early", "late"]) -> None:
        """`reports`: whether a stream reports its input tokens at its start, as Anthropic does, or at its
        end."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.text = text
        self.usage = usage
        self.early = usage if reports == "early" else dict.fromkeys(usage, 0)
        self.overloaded = False
        """If true, every message gets a 529."""
        self.received: list[ReceivedRequest] = []
        self.answered = 0
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> Self:
        Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.shutdown()
        self.server_close()

    def message(self, model: str) -> dict[str, Any]:
        return {**_message(model, self.usage), "content": [{"type": "text", "text": self.text}]}

    def events(self, model: str) -> Iterator[bytes]:
        """A streamed message with one delta per word."""
        for event in self._events(model):
            yield f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
            if event["type"] == "content_block_delta":
                time.sleep(PAUSE)

    def _events(self, model: str) -> Iterator[dict[str, Any]]:
        yield {"type": "message_start", "message": _message(model, {**self.early, "output_tokens": 0})}
        yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
        for number, word in enumerate(self.text.split()):
            text = word if number == 0 else f" {word}"
            yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
        yield {"type": "content_block_stop", "index": 0}
        yield {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": self.usage}
        yield {"type": "message_stop"}


class ChatProvider(FakeProvider):
    """Speaks chat completions. `usage` is in its terms: `prompt_tokens`, `completion_tokens`."""

    def message(self, model: str) -> dict[str, Any]:
        choice = {"index": 0, "message": {"role": "assistant", "content": self.text}, "finish_reason": "stop"}
        return {**_completion(model), "choices": [choice], "usage": self.usage}

    def events(self, model: str) -> Iterator[bytes]:
        for word in self.text.split(" "):
            choice = {"index": 0, "delta": {"content": f"{word} "}, "finish_reason": None}
            yield _data({**_completion(model), "choices": [choice]})
            time.sleep(PAUSE)
        end = {"index": 0, "delta": {}, "finish_reason": "stop"}
        yield _data({**_completion(model), "choices": [end], "usage": self.usage})
        yield b"data: [DONE]\n\n"


def _data(chunk: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def _completion(model: str) -> dict[str, Any]:
    return {"id": "chatcmpl-demo", "object": "chat.completion", "created": 0, "model": model}


def _message(model: str, usage: TokenCounts) -> dict[str, Any]:
    return {
        "id": "msg_demo",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeProvider

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.received.append(ReceivedRequest(self.path, headers, body))
        asked = json.loads(body)
        if self.server.overloaded:
            self._whole(OVERLOADED, 529)
            return
        self.server.answered += 1
        if asked.get("stream"):
            self._stream(asked["model"])
        else:
            self._whole(self.server.message(asked["model"]))

    def _whole(self, message: dict[str, Any], status: int = 200) -> None:
        content = json.dumps(message).encode()
        self._head("application/json", "content-length", str(len(content)), status)
        self.wfile.write(content)

    def _stream(self, model: str) -> None:
        self._head("text/event-stream", "transfer-encoding", "chunked")
        for content in self.server.events(model):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))
        self.wfile.write(b"0\r\n\r\n")

    def _head(self, kind: str, framing: str, value: str, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header(framing, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Logs nothing: it would mix with the output of the demo."""
