"""Whether a request is one that a provider of chat completions takes: by OpenAI's own types, and by the rules
that stand in no type (openai-chat.md 1, translation.md 2)."""

import json
import re
from copy import deepcopy
from functools import cache
from itertools import pairwise
from typing import Any

from openai.types.chat.completion_create_params import (
    CompletionCreateParamsNonStreaming,
    CompletionCreateParamsStreaming,
)
from pydantic import TypeAdapter

from signalbox.openai.dialects import Dialect, matches_any
from tests.support.typed_dicts import adapter, read_all

type Chat = dict[str, Any]

_PARTS = {"text", "image_url", "file"}


def check_types(chat: Chat, *, strict: bool) -> None:
    """Raises ValidationError for what OpenAI's package does not know; `strict`: unknown fields too."""
    read_all(_adapter("stream" in chat, strict).validate_python(chat))


@cache
def _adapter(stream: bool, strict: bool) -> TypeAdapter[Any]:
    kind = CompletionCreateParamsStreaming if stream else CompletionCreateParamsNonStreaming
    return adapter(kind, "forbid" if strict else "ignore")


def check_order(chat: Chat, dialect: Dialect) -> None:
    """Raises AssertionError."""
    messages = chat["messages"]
    assert messages, "no messages"
    _check_roles(messages, dialect, chat["model"])
    _check_calls(messages, dialect)
    for message in messages:
        _check_content(message, caches=matches_any(chat["model"], dialect.cache_control))
    _check_tools(chat, dialect)
    assert len(chat.get("stop", [])) <= dialect.stops


def _check_roles(messages: list[Chat], dialect: Dialect, model: str) -> None:
    roles = [message["role"] for message in messages]
    assert set(roles) <= {"system", "user", "assistant", "tool"}
    assert set(roles) != {"system"}, "nothing but a system message"
    assert dialect.system_anywhere or "system" not in roles[1:]
    for first, second in pairwise(roles):
        assert first != second or first == "tool" or (first == second == "system"), f"{first} twice"
        assert (first, second) != ("tool", "user") or not matches_any(model, dialect.bridged)


def _check_calls(messages: list[Chat], dialect: Dialect) -> None:
    """The results of all calls follow at once, and there are no others."""
    waiting: list[str] = []
    seen: set[str] = set()
    for message in messages:
        if message["role"] == "tool":
            waiting.remove(message["tool_call_id"])
            continue
        assert not waiting, f"{message['role']} before the results of {waiting}"
        for call in message.get("tool_calls", []):
            assert re.fullmatch(dialect.call_id, call["id"]), call["id"]
            assert re.fullmatch(dialect.tool_name, call["function"]["name"]), call
            assert isinstance(json.loads(call["function"]["arguments"]), dict)
            assert call["id"] not in seen, f"{call['id']} twice"
            seen.add(call["id"])
            waiting.append(call["id"])
        assert message.get("tool_calls") != []
    assert not waiting, f"no results of {waiting}"


def _check_content(message: Chat, *, caches: bool) -> None:
    content = message.get("content")
    if isinstance(content, list):
        assert content
        for part in content:
            assert part["type"] in _PARTS
            assert part["type"] == "text" or message["role"] == "user"
            assert part["type"] != "text" or part["text"].strip()
            assert caches or "cache_control" not in part
    elif "tool_calls" in message:
        assert content is None or content.strip()
    else:
        assert content.strip(), message


def _check_tools(chat: Chat, dialect: Dialect) -> None:
    tools = [tool["function"] for tool in chat.get("tools", []) if tool["type"] == "function"]
    assert {tool["type"] for tool in chat.get("tools", [])} <= {"function", dialect.web_search}
    assert len({tool["name"] for tool in tools}) == len(tools)
    assert chat.get("tools") != [], "an empty list of tools"
    assert tools or not {"tool_choice", "parallel_tool_calls"} & chat.keys()
    for tool in tools:
        assert re.fullmatch(dialect.tool_name, tool["name"])
        assert tool["parameters"]["type"] == "object"
        assert isinstance(tool["parameters"]["properties"], dict)


def plain(chat: Chat) -> Chat:
    """Without what a dialect spells in its own words, so that OpenAI's types can read the rest."""
    rest = deepcopy(chat)
    rest["tools"] = [tool for tool in rest.get("tools", []) if tool["type"] == "function"]
    if not rest["tools"]:
        del rest["tools"]
    if rest.get("tool_choice") == "any":
        rest["tool_choice"] = "required"
    return rest
