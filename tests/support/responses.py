"""Answers of a scripted provider that speaks Responses (openai-responses.md, 5 and 6)."""

import json
from collections.abc import Iterable
from typing import Any

from tests.support.answers import Answer, Chunk, Headers, json_answer

type Item = dict[str, Any]

USAGE = {
    "input_tokens": 620,
    "input_tokens_details": {"cached_tokens": 500},
    "output_tokens": 17,
    "output_tokens_details": {"reasoning_tokens": 5},
    "total_tokens": 637,
}


def event(type: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (type.encode(), json.dumps({"type": type} | fields).encode())


def response(status: str = "completed", **fields: Any) -> dict[str, Any]:
    usage = USAGE if status in ("completed", "incomplete") else None
    told = {"id": "resp_fake", "object": "response", "model": "up-1", "output": [], "usage": usage}
    return told | {"status": status, "error": None, "incomplete_details": None} | fields


def created() -> bytes:
    return event("response.created", response=response("in_progress"))


def ended(status: str = "completed", **fields: Any) -> bytes:
    """The last event."""
    return event(f"response.{status}", response=response(status, **fields))


def item_added(item: Item, index: int = 0) -> bytes:
    return event("response.output_item.added", output_index=index, item=item)


def item_done(item: Item, index: int = 0) -> bytes:
    return event("response.output_item.done", output_index=index, item=item)


def text_delta(text: str, index: int = 0) -> bytes:
    return event("response.output_text.delta", output_index=index, content_index=0, delta=text)


def arguments(text: str, index: int = 0) -> bytes:
    return event("response.function_call_arguments.delta", output_index=index, delta=text)


def message(text: str, *citations: tuple[str, str]) -> Item:
    """`citations` are URLs and titles."""
    noted = [{"type": "url_citation", "url": url, "title": title} for url, title in citations]
    content = [{"type": "output_text", "text": text, "annotations": noted}]
    return {"id": "msg_fake", "type": "message", "role": "assistant", "content": content}


def reasoning(*summary: str, blob: str = "") -> Item:
    parts = [{"type": "summary_text", "text": text} for text in summary]
    return {
        "id": "rs_fake",
        "type": "reasoning",
        "summary": parts,
        **({"encrypted_content": blob} if blob else {}),
    }


def function_call(name: str, arguments: str = "", *, call_id: str = "call_fake1") -> Item:
    call = {"id": "fc_fake", "type": "function_call", "status": "completed"}
    return call | {"name": name, "call_id": call_id, "arguments": arguments}


def web_search(query: str, *urls: str, type: str = "search") -> Item:
    sources = [{"type": "url", "url": url} for url in urls]
    action = {"type": type, "query": query, "sources": sources}
    return {"id": "ws_fake", "type": "web_search_call", "status": "completed", "action": action}


def item_events(item: Item, index: int = 0) -> bytes:
    """The events of one item: its beginning, its text in pieces, its end."""
    begun = item | {name: [] for name in ("content", "summary") if name in item}
    begun |= {"arguments": ""} if "arguments" in item else {}
    pieces = b""
    if item["type"] == "function_call":
        pieces = arguments(item["arguments"], index)
    for part, content in enumerate(item.get("content", [])):
        pieces += event(
            "response.output_text.delta", output_index=index, content_index=part, delta=content["text"]
        )
        for noted in content["annotations"]:
            pieces += event(
                "response.output_text.annotation.added",
                output_index=index,
                content_index=part,
                annotation=noted,
            )
    for part, content in enumerate(item.get("summary", [])):
        pieces += event(
            "response.reasoning_summary_text.delta",
            output_index=index,
            summary_index=part,
            delta=content["text"],
        )
    return item_added(begun, index) + pieces + item_done(item, index)


def item_stream(*items: Item, **last: Any) -> list[bytes]:
    """The events of an answer of these items."""
    told = [item_events(item, index) for index, item in enumerate(items)]
    return [created(), *told, ended(**({"output": list(items)} | last))]


def text_stream(*words: str) -> list[bytes]:
    """The events of an answer in these pieces."""
    said = words or ("Hello", " there.")
    return [
        created(),
        item_added(message("") | {"content": []}),
        *map(text_delta, said),
        item_done(message("".join(said))),
        ended(output=[message("".join(said))]),
    ]


def stream(chunks: Iterable[Chunk], headers: Headers = ()) -> Answer:
    return Answer(200, (("Content-Type", "text/event-stream"), *headers), tuple(chunks), "chunked")


def whole(*items: Item, **fields: Any) -> Answer:
    """A whole answer."""
    return json_answer(response(output=list(items), **fields))
