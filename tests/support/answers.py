"""Answers of a scripted provider: well-formed ones in the shapes of the Messages API, and broken ones."""

import json
import threading
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import brotli
import zstandard

type Chunk = bytes | float | threading.Event
"""Bytes to send, seconds to pause, or an event of the test to wait for."""
type Block = dict[str, Any]
type Headers = Iterable[tuple[str, str]]
type Usage = dict[str, int]

USAGE: Usage = {
    "input_tokens": 120,
    "cache_creation_input_tokens": 30,
    "cache_read_input_tokens": 500,
    "output_tokens": 17,
}


@dataclass(frozen=True)
class Answer:
    """What to send. Framing `raw` sends the chunks alone: they bring their own status line and headers."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    chunks: tuple[Chunk, ...] = ()
    framing: Literal["chunked", "length", "close", "raw"] = "length"
    length: int | None = None
    """The Content-Length to claim instead of the true one."""
    cut: Literal["close", "reset"] | None = None
    """End the connection after the chunks, without the last chunk of a chunked answer."""
    wait: threading.Event | None = None
    """Nothing is sent before it is set."""

    @property
    def body(self) -> bytes:
        return b"".join(chunk for chunk in self.chunks if isinstance(chunk, bytes))

    def head(self) -> bytes:
        headers = list(self.headers)
        if self.framing == "chunked":
            headers.append(("Transfer-Encoding", "chunked"))
        elif self.framing == "close":
            headers.append(("Connection", "close"))
        else:
            headers.append(("Content-Length", str(len(self.body) if self.length is None else self.length)))
        lines = [f"HTTP/1.1 {self.status} Scripted", *(f"{name}: {value}" for name, value in headers)]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def frame(self, chunk: bytes) -> bytes:
        return b"%x\r\n%s\r\n" % (len(chunk), chunk) if self.framing == "chunked" else chunk


def json_answer(value: Any, status: int = 200, headers: Headers = ()) -> Answer:
    body = json.dumps(value, separators=(",", ":")).encode()
    return Answer(status, (("Content-Type", "application/json"), *headers), (body,))


def error_json(status: int, kind: str, message: str = "scripted", headers: Headers = ()) -> Answer:
    error = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_fake"}
    return json_answer(error, status, headers)


def text_block(text: str) -> Block:
    return {"type": "text", "text": text}


def thinking_block(thinking: str = "Let me see.", signature: str = "c2lnbmF0dXJl") -> Block:
    return {"type": "thinking", "thinking": thinking, "signature": signature}


def tool_block(name: str = "Read", **arguments: Any) -> Block:
    return {"type": "tool_use", "id": "toolu_fake", "name": name, "input": arguments}


def message_json(
    model: str = "claude-sonnet-4-5",
    text: str = "Hello there",
    usage: Usage = USAGE,
    before: Iterable[Block] = (),
    tools: Iterable[Block] = (),
) -> Answer:
    """A whole message: the blocks `before` the text (thinking), the text, then tool calls."""
    return json_answer(_message(model, [*before, text_block(text), *tools], usage, "end_turn"))


def message_sse(
    model: str = "claude-sonnet-4-5",
    texts: Iterable[str] = ("Hello", " there"),
    usage: Usage = USAGE,
    before: Iterable[Block] = (),
    tools: Iterable[Block] = (),
) -> Answer:
    """A streamed message, one chunk an event.

    Usage as Anthropic gives it: input at the start, output at the end.
    """
    blocks = [*before, text_block(""), *tools]
    events = message_events(
        model, blocks, list(texts), {**usage, "output_tokens": 1}, {"output_tokens": usage["output_tokens"]}
    )
    return sse(*events)


def zai_sse(
    model: str = "glm-4.7", texts: Iterable[str] = ("Hello", " there"), usage: Usage = USAGE
) -> Answer:
    """A streamed message with usage as Z.ai gives it: zeros at the start, all in the last message_delta."""
    zeros = {"input_tokens": 0, "output_tokens": 0}
    return sse(*message_events(model, [text_block("")], list(texts), zeros, usage))


def sse(*events: Chunk, cut: Literal["close", "reset"] | None = None, headers: Headers = ()) -> Answer:
    return Answer(200, (("Content-Type", "text/event-stream"), *headers), events, "chunked", cut=cut)


def event(kind: str, **fields: Any) -> bytes:
    """One server-sent event: `event("ping")`, `event("error", error={...})`."""
    data = json.dumps({"type": kind, **fields}, separators=(",", ":"))
    return f"event: {kind}\ndata: {data}\n\n".encode()


def message_events(
    model: str, blocks: list[Block], texts: list[str], start: Usage, end: Usage
) -> list[bytes]:
    """The events of a message; a block of empty text is streamed as `texts`."""
    empty = _message(model, [], start, None)
    events = [event("message_start", message=empty), event("ping")]
    for index, block in enumerate(blocks):
        opening, deltas = _streamed(block, texts)
        events.append(event("content_block_start", index=index, content_block=opening))
        events += [event("content_block_delta", index=index, delta=delta) for delta in deltas]
        events.append(event("content_block_stop", index=index))
    reason = "tool_use" if blocks[-1]["type"] == "tool_use" else "end_turn"
    stop = {"stop_reason": reason, "stop_sequence": None}
    return [*events, event("message_delta", delta=stop, usage=end), event("message_stop")]


def _streamed(block: Block, texts: list[str]) -> tuple[dict[str, Any], list[Block]]:
    """A block as its start and its deltas."""
    if block["type"] == "text":
        pieces = [block["text"]] if block["text"] else texts
        return text_block(""), [{"type": "text_delta", "text": piece} for piece in pieces]
    if block["type"] == "thinking":
        thinking = {"type": "thinking_delta", "thinking": block["thinking"]}
        signature = {"type": "signature_delta", "signature": block["signature"]}
        return {**block, "thinking": "", "signature": ""}, [thinking, signature]
    arguments = json.dumps(block["input"])
    return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": arguments}]


def _message(model: str, content: list[Block], usage: Usage, stop: str | None) -> Block:
    if content and content[-1]["type"] == "tool_use":
        stop = "tool_use"
    return {
        "id": "msg_fake",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": usage,
    }


def compressed(answer: Answer, coding: Literal["gzip", "br", "zstd"]) -> Answer:
    """The same answer in this Content-Encoding, flushed after each chunk."""
    return replace(
        answer,
        headers=(*answer.headers, ("Content-Encoding", coding)),
        chunks=tuple(_compress(answer.chunks, coding)),
    )


def _compress(chunks: Iterable[Chunk], coding: str) -> Iterator[Chunk]:
    if coding == "gzip":
        gzip = zlib.compressobj(wbits=31)
        feed, flush, end = gzip.compress, lambda: gzip.flush(zlib.Z_SYNC_FLUSH), gzip.flush
    elif coding == "br":
        br = brotli.Compressor()
        feed, flush, end = br.process, br.flush, br.finish
    else:
        zstd = zstandard.ZstdCompressor().compressobj()
        feed, end = zstd.compress, zstd.flush
        flush = lambda: zstd.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)  # noqa: E731  as its two siblings are
    for chunk in chunks:
        yield feed(chunk) + flush() if isinstance(chunk, bytes) else chunk
    yield end()
