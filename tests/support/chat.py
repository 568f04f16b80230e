"""Answers of a scripted provider that speaks chat completions."""

import json
from collections.abc import Iterable
from typing import Any

from tests.support.answers import Answer, Chunk, Headers, json_answer

USAGE = {"prompt_tokens": 620, "completion_tokens": 17, "prompt_tokens_details": {"cached_tokens": 500}}


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> bytes:
    """One event of a stream; without delta its `choices` are empty."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    value = {"id": "chatcmpl-fake", "object": "chat.completion.chunk", "created": 1, "model": "up-1"}
    return b"data: " + json.dumps(value | {"choices": choices} | more).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


def call(name: str, arguments: str, id: str = "call_fake", index: int = 0) -> dict[str, Any]:
    """A whole tool call, as a delta or in a message."""
    function = {"name": name, "arguments": arguments}
    return {"index": index, "id": id, "type": "function", "function": function}


def text_stream(*words: str, finish: str = "stop") -> list[bytes]:
    """The events of an answer in these pieces."""
    return [
        chunk({"role": "assistant", "content": ""}),
        *(chunk({"content": word}) for word in words or ("Hello", " there.")),
        chunk({}, finish),
        chunk(None, usage=USAGE),
        DONE,
    ]


def stream(chunks: Iterable[Chunk], headers: Headers = ()) -> Answer:
    return Answer(200, (("Content-Type", "text/event-stream"), *headers), tuple(chunks), "chunked")


def completion(content: str | None = "Hello there.", finish: str = "stop", **message: Any) -> Answer:
    """A whole answer."""
    said = {"role": "assistant", "content": content, **message}
    return json_answer(
        {
            "id": "chatcmpl-fake",
            "object": "chat.completion",
            "created": 1,
            "model": "up-1",
            "choices": [{"index": 0, "message": said, "finish_reason": finish}],
            "usage": USAGE,
        }
    )


def error(status: int, message: str, **fields: Any) -> Answer:
    return json_answer({"error": {"message": message, **fields}}, status)
