"""A provider of the Responses API that checks a conversation: its items, and that reasoning is its own.

An answer function for `tests.upstream.Upstream`. It keeps nothing between requests: encrypted reasoning tells
which key and model it was made for, and what followed it.
"""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from signalbox.config.rules import ResponsesDialect
from signalbox.responses.dialects import DIALECTS
from tests.support.answers import Answer, json_answer
from tests.support.chat import error, stream
from tests.support.fake_provider import Received
from tests.support.responses_validator import Refused, Sent, check_request, check_types
from tests.support.strict_providers import ROUNDS

USAGE = {
    "input_tokens": 1200,
    "input_tokens_details": {"cached_tokens": 1000},
    "output_tokens": 90,
    "output_tokens_details": {"reasoning_tokens": 40},
    "total_tokens": 1290,
}
UNREADABLE = (
    "The encrypted content {} could not be verified. Reason: Encrypted content could not be decrypted or "
    "parsed."
)


class ResponsesProvider:
    """Thinks, calls tools, then answers with text; refuses with 400 what such providers are told to refuse.

    Its calls come at the same time, with their pieces interleaved, and the encrypted reasoning is whole only
    in `response.output_item.done`.
    """

    def __init__(self, name: str, dialect: ResponsesDialect = "openai") -> None:
        self.name = name
        self.dialect = DIALECTS[dialect]

    def __call__(self, received: Received) -> Answer:
        asked, key = received.json, received.header("authorization") or ""
        try:
            check_request(asked, self.dialect)
            check_types(asked)
            self._check_reasoning(asked, key)
        except (Refused, ValueError) as refused:
            code = "invalid_encrypted_content" if "encrypted content" in str(refused) else "invalid_value"
            return error(400, f"{self.name}: {refused}", type="invalid_request_error", code=code, param=None)
        output = self._output(asked, key)
        if not asked.get("stream"):
            return json_answer(response(asked["model"], output))
        return stream([*events(asked["model"], output)])

    def _check_reasoning(self, asked: Sent, key: str) -> None:
        """Raises Refused for reasoning of another key or model, and where it is not before what followed."""
        for item, following in pairwise([*asked["input"], {}]):
            if item["type"] != "reasoning":
                continue
            told = _opened(item["encrypted_content"])
            if told is None or told["of"] != [self.name, key, asked["model"]]:
                raise Refused(UNREADABLE.format(item["encrypted_content"]))
            if told["followed"] != _said(following):
                raise Refused("Item of type 'reasoning' was provided without its required following item.")

    def _output(self, asked: Sent, key: str) -> list[Sent]:
        number = sum(
            item.get("role") == "assistant" or item["type"] == "function_call" for item in asked["input"]
        )
        if asked.get("tools") and _rounds(asked["input"]) < ROUNDS:
            calls = [self._call(f"{number}_{n}") for n in range(1 + number % 2)]
            said: list[Sent] = [message(f"{self.name} reads, {number}.")] if number % 3 == 0 else []
            said += calls
        else:
            said = [message(f"{self.name} says, {number}.")]
        if asked.get("reasoning", {}).get("effort") == "none":
            return said
        shown = "summary" in asked.get("reasoning", {})
        sealed = sealed_reasoning([self.name, key, asked["model"]], _said(said[0]))
        return [reasoning(f"{self.name} thinks, {number}." if shown else "", sealed), *said]

    def _call(self, name: str) -> Sent:
        path = f"/fake/{self.name}/{name}"
        return {
            "id": f"fc_{name}",
            "type": "function_call",
            "call_id": f"call_{self.name}_{name}",
            "name": "Read",
            "arguments": json.dumps({"path": path}),
        }


def message(text: str) -> Sent:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {
        "id": "msg_fake",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": content,
    }


def reasoning(summary: str, encrypted: str) -> Sent:
    parts = [{"type": "summary_text", "text": summary}] if summary else []
    return {"id": "rs_fake", "type": "reasoning", "summary": parts, "encrypted_content": encrypted}


def sealed_reasoning(of: list[str], followed: str) -> str:
    told = json.dumps({"of": of, "followed": followed})
    return "gAAAA" + urlsafe_b64encode(told.encode()).decode()


def _opened(blob: str) -> dict[str, Any] | None:
    try:
        told: dict[str, Any] = json.loads(urlsafe_b64decode(blob.removeprefix("gAAAA")))
    except ValueError:
        return None
    return told


def _said(item: Sent) -> str:
    """What an item says, as it comes and as it goes back."""
    content = item.get("content")
    return (
        content[0]["text"]
        if isinstance(content, list)
        else content or item.get("arguments", "").replace(" ", "")
    )


def _rounds(items: list[Sent]) -> int:
    """Rounds of calls since the user last asked."""
    asked = [item.get("role") == "user" and "Question" in str(item["content"]) for item in items]
    last = max((n for n, asks in enumerate(asked) if asks), default=0)
    kinds = [item["type"] == "function_call_output" for item in items[last:]]
    return sum(now and not before for before, now in pairwise([False, *kinds]))


def response(model: str, output: list[Sent], **more: Any) -> Sent:
    """A whole answer."""
    whole = {"id": "resp_fake", "object": "response", "created_at": 1, "status": "completed", "model": model}
    return {**whole, "error": None, "incomplete_details": None, "output": output, "usage": USAGE, **more}


def event(name: str, **fields: Any) -> bytes:
    data = json.dumps({"type": f"response.{name}", **fields})
    return f"event: response.{name}\ndata: {data}\n\n".encode()


def events(model: str, output: list[Sent]) -> Iterator[bytes]:
    """The answer as a stream; calls at the end come at the same time."""
    yield event("created", response=response(model, [], status="in_progress", usage=None))
    calls = [(index, item) for index, item in enumerate(output) if item["type"] == "function_call"]
    for index, item in enumerate(output):
        if item["type"] == "reasoning":
            yield from _reasoning_events(index, item)
        elif item["type"] == "message":
            yield event("output_item.added", output_index=index, item={**item, "content": []})
            for word in item["content"][0]["text"].partition(","):
                yield event("output_text.delta", output_index=index, content_index=0, item_id="x", delta=word)
            yield event("output_item.done", output_index=index, item=item)
    for index, item in calls:
        yield event("output_item.added", output_index=index, item={**item, "arguments": ""})
    for cut in (slice(0, 4), slice(4, None)):
        for index, item in calls:
            yield event("function_call_arguments.delta", output_index=index, delta=item["arguments"][cut])
    for index, item in calls:
        yield event("output_item.done", output_index=index, item=item)
    yield event("completed", response=response(model, output))


def _reasoning_events(index: int, item: Sent) -> Iterator[bytes]:
    begun = {**item, "summary": [], "encrypted_content": item["encrypted_content"][:9]}
    yield event("output_item.added", output_index=index, item=begun)
    for number, part in enumerate(item["summary"]):
        where = {"output_index": index, "summary_index": number}
        yield event("reasoning_summary_part.added", **where, part={**part, "text": ""})
        yield event("reasoning_summary_text.delta", **where, delta=part["text"])
    yield event("output_item.done", output_index=index, item=item)
