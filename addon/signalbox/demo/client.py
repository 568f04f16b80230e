"""A client of the router that sends what Claude Code sends."""

import http.client
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

TIMEOUT = 5.0


@dataclass(frozen=True)
class Reply:
    """An answer: the router's headers, the text, and the seconds until the first and last piece of it."""

    status: int
    provider: str
    model: str
    rule: str
    attempts: str
    body: dict[str, Any]
    """The JSON of a whole answer; empty where it was streamed."""
    text: str
    first: float
    last: float


class Client:
    """A client with a login of Anthropic, which knows only the router's port."""

    def __init__(self, port: int, login: str) -> None:
        self._port = port
        self._headers = {
            "authorization": f"Bearer {login}",
            "anthropic-version": "2023-06-01",
            "content-type": "application/json",
            "user-agent": "signalbox-demo",
        }

    def message(self, model: str, prompt: str) -> Reply:
        return self._ask("/v1/messages", request_body(model, prompt))

    def stream(self, model: str, prompt: str, on_text: Callable[[str], None]) -> Reply:
        return self._ask("/v1/messages", request_body(model, prompt, stream=True), on_text)

    def count_tokens(self, model: str, prompt: str) -> Reply:
        return self._ask("/v1/messages/count_tokens", request_body(model, prompt))

    def _ask(self, path: str, body: bytes, on_text: Callable[[str], None] = lambda _: None) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT)
        start = time.monotonic()
        try:
            connection.request("POST", path, body, self._headers)
            return _answered(connection.getresponse(), start, on_text)
        finally:
            connection.close()


def request_body(model: str, prompt: str, **more: Any) -> bytes:
    messages = [{"role": "user", "content": prompt}]
    return json.dumps({"model": model, "max_tokens": 200, "messages": messages, **more}).encode()


def _answered(response: http.client.HTTPResponse, start: float, on_text: Callable[[str], None]) -> Reply:
    pieces: list[str] = []
    moments: list[float] = []
    streamed = response.headers.get_content_type() == "text/event-stream"
    answer = {} if streamed else json.loads(response.read())
    for event in map(json.loads, (line[6:] for line in response if line.startswith(b"data: "))):
        if event["type"] == "content_block_delta":
            moments.append(time.monotonic() - start)
            pieces.append(event["delta"]["text"])
            on_text(pieces[-1])
    moments = moments or [time.monotonic() - start]
    headers = response.headers
    return Reply(
        status=response.status,
        provider=headers.get("x-signalbox-provider", ""),
        model=headers.get("x-signalbox-model", ""),
        rule=headers.get("x-signalbox-rule", ""),
        attempts=headers.get("x-signalbox-attempts", ""),
        body=answer,
        text="".join(pieces) or _text(answer),
        first=moments[0],
        last=moments[-1],
    )


def _text(answer: dict[str, Any]) -> str:
    return "".join(block.get("text", "") for block in answer.get("content", ()))
