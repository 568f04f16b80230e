"""The models of the LiteLLM gateway that tests start: loaded by LiteLLM, in its own environment."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import litellm
from litellm import CustomLLM, ModelResponse

TEXT = "The train leaves at ten past five."
CALLS = (
    ("call_riverside", '{"station": "Riverside"}'),
    ("call_harbour", '{"station": "Harbour", "platforms": [1, 2]}'),
)
"""Two calls of the tool get_time."""


class Scripted(CustomLLM):
    """`text` says a sentence, `tools` calls a tool twice at once, `echo` tells as JSON what it was asked."""

    async def acompletion(self, model: str, messages: list[Any], **asked: Any) -> ModelResponse:
        chunks = list(_chunks(model, messages, asked["optional_params"]))
        message: dict[str, Any] = {
            "role": "assistant",
            "content": "".join(chunk["text"] for chunk in chunks) or None,
        }
        if model == "tools":
            message["tool_calls"] = [
                {"id": id, "type": "function", "function": {"name": "get_time", "arguments": arguments}}
                for id, arguments in CALLS
            ]
        return ModelResponse(
            model=model,
            choices=[{"index": 0, "message": message, "finish_reason": chunks[-1]["finish_reason"]}],
            usage=litellm.Usage(**chunks[-1]["usage"]),
        )

    async def astreaming(self, model: str, messages: list[Any], **asked: Any) -> AsyncIterator[Any]:
        for chunk in _chunks(model, messages, asked["optional_params"]):
            yield chunk


def _chunks(model: str, messages: list[Any], optional: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if model == "tools":
        for index, (id, arguments) in enumerate(CALLS):
            yield _chunk(tool_use=_call(index, id, "get_time", ""))
            for at in range(0, len(arguments), 7):
                yield _chunk(tool_use=_call(index, None, None, arguments[at : at + 7]))
    else:
        text = json.dumps({"messages": messages, **optional}, default=str) if model == "echo" else TEXT
        for at in range(0, len(text), 10):
            yield _chunk(text=text[at : at + 10])
    usage = {"prompt_tokens": 120, "completion_tokens": 17, "total_tokens": 137}
    yield _chunk(is_finished=True, finish_reason="tool_calls" if model == "tools" else "stop", usage=usage)


def _chunk(**fields: Any) -> dict[str, Any]:
    """A GenericStreamingChunk, LiteLLM's own form of a chunk."""
    return {"text": "", "is_finished": False, "finish_reason": "", "index": 0, "usage": None, **fields}


def _call(index: int, id: str | None, name: str | None, arguments: str) -> dict[str, Any]:
    return {
        "id": id,
        "index": index,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


scripted = Scripted()
