"""Whether a request is one that a provider of the Responses API takes: by OpenAI's own types, and by the
rules that stand in no type (openai-responses.md 1, 2 and 4)."""

import json
import re
from collections.abc import Collection
from copy import deepcopy
from functools import cache
from itertools import pairwise
from typing import Any

from openai.types.responses.input_token_count_params import InputTokenCountParams
from openai.types.responses.response_create_params import (
    ResponseCreateParamsNonStreaming,
    ResponseCreateParamsStreaming,
)
from pydantic import TypeAdapter

from signalbox.responses.dialects import Dialect
from tests.support.typed_dicts import adapter, read_all

type Sent = dict[str, Any]

GENERIC = frozenset(
    {
        "model", "input", "instructions", "stream", "store", "tools", "tool_choice", "max_output_tokens",
        "reasoning",
    }
)  # fmt: skip
"""All that a server that is known for nothing more gets (openai-responses.md, 8)."""
CODEX_REFUSES = frozenset(
    {
        "max_output_tokens", "temperature", "top_p", "metadata", "user", "safety_identifier",
        "stream_options", "previous_response_id", "prompt_cache_retention", "truncation",
    }
)  # fmt: skip
"""openai-responses.md, 9."""


class Refused(Exception):
    """What the provider says with its 400."""


def check_types(sent: Sent, *, counts: bool = False) -> None:
    """Raises ValidationError for what OpenAI's package does not know."""
    kind = ResponseCreateParamsStreaming if "stream" in sent else ResponseCreateParamsNonStreaming
    read_all(_adapter(InputTokenCountParams if counts else kind).validate_python(_typed(sent)))


def _typed(sent: Sent) -> Sent:
    """The request as its types have it: there a reasoning item must have an id. With `store: false` the API
    does not find one again, and takes items without."""
    typed = deepcopy(sent)
    for item in typed["input"]:
        if item.get("type") == "reasoning":
            item["id"] = "rs_fake"
    for tool in typed.get("tools", []):
        tool.get("filters", {}).pop("excluded_domains", None)  # xAI's
    return typed


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return adapter(kind, "forbid")


def check_request(sent: Sent, dialect: Dialect) -> None:
    """Raises Refused."""
    if dialect.name == "generic" and (odd := sent.keys() - GENERIC):
        raise Refused(f"Unknown parameter: '{min(odd)}'.")
    if dialect.name == "codex":
        _check_codex(sent)
    _require(sent.get("store") is False, "Store must be set to false")
    _require(isinstance(sent["input"], list), "Input must be a list")
    _require("previous_response_id" not in sent, "Unsupported parameter: previous_response_id")
    _require(sent.get("max_output_tokens", 16) >= 16, "integer_below_min_value: max_output_tokens")
    _require(len(sent.get("prompt_cache_key", "")) <= 64, "string_above_max_length: prompt_cache_key")
    _check_items(sent["input"], dialect)
    _check_tools(sent, dialect)


def _check_codex(sent: Sent) -> None:
    for name in sorted(CODEX_REFUSES & sent.keys()):
        raise Refused(f"Unsupported parameter: {name}")
    _require(sent.get("stream") is True, "Stream must be set to true")
    _require("instructions" in sent, "Instructions are required")


def _check_items(items: list[Sent], dialect: Dialect) -> None:
    _require(bool(items), "input is empty")
    for number, item in enumerate(items):
        for name in ("id", "status"):
            _require(name not in item, f"Unknown parameter: 'input[{number}].{name}'.")
        _check_item(item, number, dialect)
    for item, following in pairwise([*items, {}]):
        if item["type"] == "reasoning":
            said = following.get("role") == "assistant" or following.get("type") == "function_call"
            _require(said, "Item of type 'reasoning' was provided without its required following item.")
    _check_pairs(items)


def _check_item(item: Sent, number: int, dialect: Dialect) -> None:
    match item["type"]:
        case "reasoning":
            _require(item.get("summary") == [], "Missing required parameter: summary")
            _require(
                set(item) == {"type", "summary", "encrypted_content"}, f"Unknown parameter in {set(item)}"
            )
        case "function_call":
            _require(re.fullmatch(dialect.call_id, item["call_id"]), f"invalid call_id {item['call_id']}")
            _require(re.fullmatch(dialect.tool_name, item["name"]), f"invalid name {item['name']}")
            _require(isinstance(json.loads(item["arguments"]), dict), "arguments are no object")
        case "function_call_output":
            _check_output(item["output"], dialect)
        case "message":
            roles = {"user", "assistant", *(("developer",) if dialect.developer else ())}
            _require(item["role"] in roles, f"Unexpected role {item['role']}")
            _check_message(item, dialect)
        case kind:
            raise Refused(f"Invalid value: '{kind}' (input[{number}].type)")


def _check_message(item: Sent, dialect: Dialect) -> None:
    if item["role"] == "assistant":
        _require(isinstance(item["content"], str) and item["content"].strip(), "an empty message")
        return
    _require(bool(item["content"]), "an empty message")
    for part in item["content"]:
        _check_part(part, dialect)


def _check_output(output: Any, dialect: Dialect) -> None:
    if isinstance(output, str):
        _require(bool(output.strip()), "an empty output")
        return
    _require(dialect.media_in_results, "output must be a string")
    for part in output:
        _check_part(part, dialect)


def _check_part(part: Sent, dialect: Dialect) -> None:
    match part["type"]:
        case "input_text":
            _require(set(part) == {"type", "text"} and part["text"].strip(), f"bad text {part}")
        case "input_image":
            _require(dialect.image_urls or part["image_url"].startswith("data:"), "no URLs")
        case "input_file":
            _require(dialect.files, "input_file is not supported")
            _require("file_url" in part or {"filename", "file_data"} <= part.keys(), "filename is required")
        case kind:
            raise Refused(f"Invalid value: '{kind}'")


def _check_pairs(items: list[Sent]) -> None:
    """Each call has one output, after it; between them stand only other calls and their outputs."""
    waiting: list[str] = []
    seen: set[str] = set()
    for item in items:
        kind, id = item["type"], item.get("call_id")
        if kind == "function_call":
            _require(id not in seen, f"Duplicate call_id {id}")
            seen.add(id)
            waiting.append(id)
        elif kind == "function_call_output":
            _require(id in waiting, f"No tool call found for function call output with call_id {id}.")
            waiting.remove(id)
        elif not (kind == "reasoning" or item["role"] == "assistant"):
            _require(not waiting, f"No tool output found for function call {waiting}.")
    _require(not waiting, f"No tool output found for function call {waiting}.")


def _check_tools(sent: Sent, dialect: Dialect) -> None:
    tools = sent.get("tools")
    if tools is None:
        _require(not {"tool_choice", "parallel_tool_calls"} & sent.keys(), "tool_choice without tools")
        return
    _require(bool(tools), "tools is empty")
    names = [tool["name"] for tool in tools if tool["type"] == "function"]
    _require(len(set(names)) == len(names), "Duplicate tool name")
    for tool in tools:
        if tool["type"] == "web_search":
            _require(dialect.web_search, "Unsupported tool type: web_search")
            _check_domains(tool.get("filters", {}), dialect)
            continue
        _require(re.fullmatch(dialect.tool_name, tool["name"]), f"invalid name {tool['name']}")
        _require(isinstance(tool["strict"], bool), "strict would be on")
        _require(tool["parameters"]["type"] == "object", "schema must be of type object")
        _require(isinstance(tool["parameters"]["properties"], dict), "object schema missing properties")


def _check_domains(filters: Sent, dialect: Dialect) -> None:
    known = {"allowed_domains", *(("excluded_domains",) if dialect.excluded_domains else ())}
    _require(filters.keys() <= known, f"Unknown parameter: {filters}")
    for listed in filters.values():
        _require(len(listed) <= (dialect.most_domains or 100), "too many domains")


def foreign_reasoning(items: Collection[Sent], mine: str) -> str | None:
    """The first encrypted reasoning that does not begin with `mine`."""
    blobs = (item["encrypted_content"] for item in items if item.get("type") == "reasoning")
    return next((blob for blob in blobs if not blob.startswith(mine)), None)


def _require(holds: object, message: str) -> None:
    if not holds:
        raise Refused(message)
