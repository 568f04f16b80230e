"""A provider on loopback that answers what a request's text asks for, as fast as Python can.

`BENCH:events=5000,gap=0.01;` anywhere in a body: so many text events, so many seconds apart (0: all at once).
Each event says when it left (`time.monotonic_ns`, in hex) and its number, as `T<time>_<number>Z`. Answers are
those of the Messages API, or chat completions or Responses where such a path is asked; one JSON body where
the request does not want a stream. Run as `python -m tests.bench.provider PORT`; ends with its standard
input.
"""

import asyncio
import json
import re
import sys
import threading
import time
from functools import cache

DIRECTIVE = re.compile(rb"BENCH:events=(\d+),gap=([\d.]+);")
WHOLE = re.compile(rb'"stream": ?false')
CHAT = b"/chat/completions"
RESPONSES = b"/responses"
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)
LAST = b"0\r\n\r\n"


def stamp(number: int, at: int) -> str:
    return f"T{at:016x}_{number:06x}Z"


def event(name: str, **data: object) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n".encode()


def message(text: str) -> dict[str, object]:
    usage = {"input_tokens": 9, "output_tokens": 3}
    told = {
        "id": "msg_bench",
        "type": "message",
        "role": "assistant",
        "model": "claude-bench",
        "usage": usage,
    }
    return told | {"content": [{"type": "text", "text": text}] if text else [], "stop_reason": "end_turn"}


class Messages:
    """The Messages API's events."""

    start = event("message_start", message=message("") | {"stop_reason": None}) + event(
        "content_block_start", index=0, content_block={"type": "text", "text": ""}
    )
    end = (
        event("content_block_stop", index=0)
        + event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 3})
        + event("message_stop")
    )

    @staticmethod
    def text(number: int, at: int) -> bytes:
        return event("content_block_delta", index=0, delta={"type": "text_delta", "text": stamp(number, at)})

    @staticmethod
    def whole() -> bytes:
        return json.dumps(message(stamp(0, time.monotonic_ns()))).encode()


class Chat:
    """Chunks of a chat completion."""

    @staticmethod
    def chunk(**more: object) -> bytes:
        told = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1, "model": "bench"}
        return b"data: " + json.dumps(told | more).encode() + b"\n\n"

    @staticmethod
    def choice(finish: str | None, **delta: object) -> list[dict[str, object]]:
        return [{"index": 0, "delta": delta, "finish_reason": finish}]

    start = b""
    end = b""

    @staticmethod
    def text(number: int, at: int) -> bytes:
        return Chat.chunk(choices=Chat.choice(None, content=stamp(number, at)))

    @staticmethod
    def whole() -> bytes:
        said = {"role": "assistant", "content": stamp(0, time.monotonic_ns())}
        choice = {"index": 0, "message": said, "finish_reason": "stop"}
        told = {"id": "chatcmpl-bench", "object": "chat.completion", "created": 1, "model": "bench"}
        usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
        return json.dumps(told | {"choices": [choice], "usage": usage}).encode()


Chat.start = Chat.chunk(choices=Chat.choice(None, role="assistant", content=""))
Chat.end = (
    Chat.chunk(choices=Chat.choice("stop"))
    + Chat.chunk(choices=[], usage={"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12})
    + b"data: [DONE]\n\n"
)


class Responses:
    """Events of Responses, as OpenAI sends them without obfuscation."""

    start = b""
    end = b""

    @staticmethod
    def response(status: str, **more: object) -> dict[str, object]:
        told = {"id": "resp_bench", "object": "response", "created_at": 1, "model": "bench", "error": None}
        return told | {"status": status, "output": [], "usage": None} | more

    @staticmethod
    def item(text: str) -> dict[str, object]:
        content = [{"type": "output_text", "text": text, "annotations": []}] if text else []
        return {"id": "msg_bench", "type": "message", "role": "assistant", "content": content}

    @staticmethod
    def text(number: int, at: int) -> bytes:
        return event(
            "response.output_text.delta",
            sequence_number=number,
            item_id="msg_bench",
            output_index=0,
            content_index=0,
            delta=stamp(number, at),
            logprobs=[],
        )

    @staticmethod
    def whole() -> bytes:
        usage = {"input_tokens": 9, "output_tokens": 3, "total_tokens": 12}
        said = Responses.item(stamp(0, time.monotonic_ns()))
        return json.dumps(Responses.response("completed", output=[said], usage=usage)).encode()


Responses.start = (
    event("response.created", response=Responses.response("in_progress"))
    + event("response.in_progress", response=Responses.response("in_progress"))
    + event("response.output_item.added", output_index=0, item=Responses.item(""))
)
Responses.end = event("response.output_item.done", output_index=0, item=Responses.item("as above")) + event(
    "response.completed",
    response=Responses.response("completed", usage={"input_tokens": 9, "output_tokens": 3}),
)


def framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


type Api = type[Messages] | type[Chat] | type[Responses]


@cache
def burst(api: Api, events: int) -> bytes:
    """All at once, each event in an HTTP chunk of its own; they tell their number and no time."""
    parts = [api.start, *(api.text(number, 0) for number in range(events)), api.end]
    return STREAM_HEAD + b"".join(framed(part) for part in parts) + LAST


class Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self.buffer = bytearray()
        self.size = -1
        """Of the request under way with its head, once that is in."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if self.size < 0:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self.buffer[:end]).lower()
            length = re.search(rb"content-length: *(\d+)", head)
            self.size = end + 4 + int(length[1]) if length else end + 4
        if len(self.buffer) >= self.size:
            request, self.buffer, self.size = bytes(self.buffer), bytearray(), -1
            self.answer(request)

    def answer(self, request: bytes) -> None:
        line = request[: request.index(b"\r\n")]
        api = Chat if CHAT in line else Responses if RESPONSES in line else Messages
        asked = DIRECTIVE.search(request)
        events, gap = (int(asked[1]), float(asked[2])) if asked else (1, 0.0)
        if WHOLE.search(request):
            body = api.whole()
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
            self.transport.write(head % len(body) + body)
        elif gap:
            self.transport.write(STREAM_HEAD + framed(api.start))
            self.pace(api, 0, events, gap, asyncio.get_running_loop().time() + gap)
        else:
            self.transport.write(burst(api, events))

    def pace(self, api: Api, number: int, events: int, gap: float, due: float) -> None:
        if self.transport.is_closing():
            return
        if number == events:
            self.transport.write(framed(api.end) + LAST)
            return
        self.transport.write(framed(api.text(number, time.monotonic_ns())))
        loop = asyncio.get_running_loop()
        loop.call_at(due, self.pace, api, number + 1, events, gap, due + gap)


async def serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", port, backlog=1024)
    ended = asyncio.Event()
    waits = threading.Thread(
        target=lambda: (sys.stdin.read(), loop.call_soon_threadsafe(ended.set)), daemon=True
    )
    waits.start()
    async with server:
        await ended.wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
