"""Requests as readable text: model and parameters, tools, instructions, then the conversation.

Pure functions of a decoded body. Shapes: the Messages API (messages-api.md), chat completions
(chat-completions.md), Responses (openai-responses.md, 1 and 2).
"""

from collections.abc import Callable, Iterator
from typing import Any

from signalbox.inspect.text import (
    arguments,
    as_json,
    data_url,
    folded,
    indented,
    items,
    mapping,
    section,
    size,
    text_of,
)

type Lines = Iterator[str]

CONVERSATION = {"model", "messages", "input", "system", "instructions", "tools", "functions"}
"""Members that have a section of their own; all others are parameters."""


def messages_request(body: dict[str, Any]) -> Lines:
    yield from _beginning(body)
    yield from section(_counted("Tools", body.get("tools")), _tools(body.get("tools"), _messages_tool))
    yield from section("System", _messages_content(body.get("system")))
    yield from _conversation(body.get("messages"), _messages_content)


def chat_request(body: dict[str, Any]) -> Lines:
    yield from _beginning(body)
    tools = body.get("tools") or [{"function": one} for one in items(body.get("functions"))]
    yield from section(_counted("Tools", tools), _tools(tools, _chat_tool))
    yield from _conversation(body.get("messages"), None)


def responses_request(body: dict[str, Any]) -> Lines:
    yield from _beginning(body)
    yield from section(_counted("Tools", body.get("tools")), _tools(body.get("tools"), _responses_tool))
    yield from section("Instructions", _plain(body.get("instructions")))
    given = body.get("input")
    entries = given if isinstance(given, list) else [{"role": "user", "content": given}]
    yield from section(_counted("Input", entries), _responses_items(entries))


def _beginning(body: dict[str, Any]) -> Lines:
    yield f"Model: {text_of(body.get('model')) or '(none)'}"
    for name, value in body.items():
        if name not in CONVERSATION:
            yield f"{name}: {folded(text_of(value))}"


def _counted(title: str, values: Any) -> str:
    return f"{title} ({len(items(values))})"


def _plain(value: Any) -> Lines:
    if value is not None:
        yield from indented(folded(text_of(value)))


def _conversation(messages: Any, content: Callable[[Any], Lines] | None) -> Lines:
    """Of each message its number and role, then what it says."""
    entries = items(messages)
    if not entries and messages:
        yield from section("Messages", _plain(messages))
        return
    if entries:
        yield ""
        yield _counted("Messages", entries)
    for number, entry in enumerate(entries, 1):
        message = mapping(entry)
        yield f"  {number} {text_of(message.get('role')) or '(no role)'}"
        if not message:
            yield from _plain(entry)
        elif content is not None:
            yield from content(message.get("content"))
        else:
            yield from _chat_message(message)


# tools


def _tools(tools: Any, describe: Callable[[dict[str, Any]], str]) -> Lines:
    for tool in items(tools):
        yield from indented(describe(mapping(tool)) if isinstance(tool, dict) else as_json(tool))


def _signature(name: Any, schema: Any) -> str:
    """`Read(file_path, limit?)`: the names of a tool's arguments, those that may be left out marked."""
    described = mapping(schema)
    required = items(described.get("required"))
    names = (f"{name}{'' if name in required else '?'}" for name in mapping(described.get("properties")))
    return f"{text_of(name) or '(no name)'}({', '.join(names)})"


def _messages_tool(tool: dict[str, Any]) -> str:
    if "input_schema" not in tool and tool.get("type"):
        more = {name: value for name, value in tool.items() if name not in ("type", "name", "cache_control")}
        shown = f"{text_of(tool.get('type'))} {as_json(more)}" if more else text_of(tool.get("type"))
    else:
        shown = _signature(tool.get("name"), tool.get("input_schema"))
    return f"{shown}{' deferred' if tool.get('defer_loading') else ''}{_mark(tool)}"


def _chat_tool(tool: dict[str, Any]) -> str:
    function = mapping(tool.get("function"))
    shown = _signature(function.get("name"), function.get("parameters")) if function else as_json(tool)
    return f"{shown}{_mark(tool) if function else ''}"


def _responses_tool(tool: dict[str, Any]) -> str:
    if tool.get("type") != "function":
        return as_json(tool)
    return _signature(tool.get("name"), tool.get("parameters"))


# content of the Messages API


def _mark(block: dict[str, Any]) -> str:
    """That a provider is asked to keep a cache up to here."""
    mark = mapping(block.get("cache_control"))
    return f" [cache mark {text_of(mark.get('ttl')) or '5m'}]" if mark else ""


def _messages_content(content: Any) -> Lines:
    if isinstance(content, str) or not isinstance(content, list):
        yield from _plain(content)
        return
    for block in content:
        yield from messages_block(block)


def messages_block(block: Any, depth: int = 1) -> Lines:
    """One block of content: its kind and mark, then what is in it."""
    if not isinstance(block, dict):
        yield from indented(folded(text_of(block)), depth)
        return
    kind, mark = text_of(block.get("type")), _mark(block)
    if kind == "text":
        if mark:
            yield from indented(f"text{mark}", depth)
        yield from indented(folded(text_of(block.get("text"))), depth + bool(mark))
    elif kind == "thinking":
        signed = "signed" if block.get("signature") else "not signed"
        yield from indented(f"thinking, {signed}{mark}", depth)
        yield from indented(folded(text_of(block.get("thinking"))), depth + 1)
    elif kind == "redacted_thinking":
        yield from indented(f"redacted thinking, {len(text_of(block.get('data'))):,} characters{mark}", depth)
    elif kind.endswith("tool_use"):
        yield from indented(f"call {text_of(block.get('name'))} {text_of(block.get('id'))}{mark}", depth)
        yield from arguments(block.get("input"), depth + 1)
    elif kind.endswith("tool_result"):
        failed = " (error)" if block.get("is_error") else ""
        yield from indented(f"result {text_of(block.get('tool_use_id'))}{failed}{mark}", depth)
        inner = block.get("content")
        for part in inner if isinstance(inner, list) else [{"type": "text", "text": text_of(inner)}]:
            yield from messages_block(part, depth + 1)
    elif kind in ("image", "document"):
        yield from indented(f"{kind} {_source(mapping(block.get('source')))}{mark}", depth)
    else:
        rest = {name: value for name, value in block.items() if name not in ("type", "cache_control")}
        yield from indented(f"{kind or '(no type)'}{mark}", depth)
        yield from indented(folded(as_json(rest)), depth + 1)


def _source(source: dict[str, Any]) -> str:
    encoded = source.get("data")
    if source.get("type") == "base64" and isinstance(encoded, str):
        return f"{text_of(source.get('media_type'))}, {size(encoded)}"
    return data_url(text_of(source.get("url") or source.get("file_id") or encoded))


# messages of chat completions


def _chat_message(message: dict[str, Any]) -> Lines:
    if message.get("tool_call_id"):
        yield from indented(f"result {text_of(message['tool_call_id'])}")
    for name in ("reasoning_content", "reasoning"):
        if message.get(name):
            yield from indented("thinking")
            yield from indented(folded(text_of(message[name])), 2)
    content = message.get("content")
    for part in content if isinstance(content, list) else [] if content is None else [content]:
        yield from _chat_part(part)
    for call in items(message.get("tool_calls")):
        yield from chat_call(call)


def _chat_part(part: Any) -> Lines:
    fields = mapping(part)
    mark = _mark(fields)
    if fields.get("type") == "image_url":
        yield from indented(f"image {data_url(text_of(mapping(fields.get('image_url')).get('url')))}{mark}")
    elif "text" in fields:
        if mark:
            yield from indented(f"text{mark}")
        yield from indented(folded(text_of(fields["text"])), 1 + bool(mark))
    else:
        yield from indented(folded(text_of(part)))


def chat_call(call: Any) -> Lines:
    fields = mapping(call)
    function = mapping(fields.get("function"))
    yield from indented(f"call {text_of(function.get('name'))} {text_of(fields.get('id'))}")
    yield from arguments(function.get("arguments"), 2)


# items of Responses


def _responses_items(entries: list[Any]) -> Lines:
    for number, entry in enumerate(entries, 1):
        item = mapping(entry)
        yield f"  {number} {text_of(item.get('role') or item.get('type')) or '(no type)'}"
        yield from responses_item(item) if item else _plain(entry)


def responses_item(item: dict[str, Any], depth: int = 1) -> Lines:
    """What is in one item of an input or an output."""
    kind = text_of(item.get("type")) or "message"
    if kind == "message":
        content = item.get("content")
        for part in content if isinstance(content, list) else [content]:
            yield from _responses_part(part, depth)
    elif kind in ("function_call", "custom_tool_call"):
        yield from indented(f"call {text_of(item.get('name'))} {text_of(item.get('call_id'))}", depth)
        yield from arguments(item.get("arguments") or item.get("input"), depth + 1)
    elif kind in ("function_call_output", "custom_tool_call_output"):
        yield from indented(f"result {text_of(item.get('call_id'))}", depth)
        output = item.get("output")
        for part in output if isinstance(output, list) else [output]:
            yield from _responses_part(part, depth)
    elif kind == "reasoning":
        encrypted = text_of(item.get("encrypted_content"))
        shown = f"thinking, {len(encrypted):,} characters encrypted" if encrypted else "thinking"
        yield from indented(shown, depth)
        for part in items(item.get("summary")) or items(item.get("content")):
            yield from indented(folded(text_of(mapping(part).get("text"))), depth + 1)
    elif kind == "web_search_call":
        yield from _web_search(item, depth)
    else:
        rest = {name: one for name, one in item.items() if name != "type"}
        yield from indented(folded(as_json(rest)), depth)


def _web_search(item: dict[str, Any], depth: int) -> Lines:
    """What was searched or opened, and the addresses found."""
    action = mapping(item.get("action"))
    asked = action.get("query") or ", ".join(map(text_of, items(action.get("queries")))) or action.get("url")
    status = "" if item.get("status") == "completed" else f" ({text_of(item.get('status')) or 'no status'})"
    yield from indented(f"web {text_of(action.get('type')) or 'search'} {text_of(asked)}{status}", depth)
    for source in items(action.get("sources")):
        yield from indented(text_of(mapping(source).get("url") or source), depth + 1)


def _responses_part(part: Any, depth: int) -> Lines:
    fields = mapping(part)
    if fields.get("type") == "input_image":
        yield from indented(f"image {data_url(text_of(fields.get('image_url')))}", depth)
    elif fields.get("type") == "input_file":
        shown = data_url(text_of(fields.get("file_data") or fields.get("file_url")))
        yield from indented(f"file {text_of(fields.get('filename'))} {shown}", depth)
    elif "text" in fields or "refusal" in fields:
        yield from indented(folded(text_of(fields.get("text") or fields.get("refusal"))), depth)
    elif part is not None:
        yield from indented(folded(text_of(part)), depth)
