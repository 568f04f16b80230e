"""Fake providers on loopback: Anthropic's format, and chat completions. They record what they receive."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Literal, Self

from signalbox.scenarios.wire import ChatAnswer, FakeAnswer, MessagesAnswer, Usage

PAUSE = 0.06
"""Seconds between two words of a stream."""


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

    def __init__(self, text: str, usage: Usage, reports: Literal["early", "late"]) -> None:
        """`reports`: whether a stream reports its input tokens at its start, as Anthropic does, or at its
        end."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.text = text
        self.usage = usage
        self.reports = reports
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

    def answer(self, model: str) -> FakeAnswer:
        return MessagesAnswer(model, self.usage, self.reports)

    def events(self, model: str) -> Iterator[bytes]:
        """A streamed message with one delta per word."""
        answer = self.answer(model)
        yield answer.begin()
        for number, word in enumerate(self.text.split()):
            yield answer.text(word if number == 0 else f" {word}")
            time.sleep(PAUSE)
        yield answer.end()


class ChatProvider(FakeProvider):
    """Speaks chat completions. `usage` is in its terms: `prompt_tokens`, `completion_tokens`."""

    def answer(self, model: str) -> FakeAnswer:
        return ChatAnswer(model, self.usage)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeProvider

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.received.append(ReceivedRequest(self.path, headers, body))
        asked = json.loads(body)
        if self.server.overloaded:
            overloaded = MessagesAnswer("").refusal("overloaded_error", "Overloaded", "")
            self._whole(overloaded, 529)
            return
        self.server.answered += 1
        if asked.get("stream"):
            self._stream(asked["model"])
        else:
            self._whole(self.server.answer(asked["model"]).whole(self.server.text))

    def _whole(self, content: bytes, status: int = 200) -> None:
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
