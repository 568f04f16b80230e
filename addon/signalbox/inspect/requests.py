"""Requests as readable text: model and parameters, tools, instructions, then the conversation.

Pure functions of a decoded body. Shapes: the Messages API (messages-api.md), chat completions
(chat-completions.md), Responses (openai-responses.md, 1 and 2). Long texts are folded, but for those that
were said last.
"""

from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from typing import Any

from signalbox.inspect.text import (
    LONG,
    NOTHING,
    SHORT,
    Fold,
    arguments,
    as_json,
    data_url,
    each,
    folded,
    heading,
    indented,
    items,
    mapping,
    section,
    size,
    text_of,
)

type Pieces = Iterator[str]

CONVERSATION = {"model", "messages", "input", "system", "instructions", "tools", "functions"}
"""Members that have a section of their own; all others are parameters."""
DEEPEST_BLOCK = 20
"""Blocks within one another that are shown as such."""
_ANSWERS = ("reasoning", "function_call", "custom_tool_call", "web_search_call")
"""Types of items of Responses that a model made, besides messages with the role of the assistant."""
_INSTRUCTING = ("system", "developer")
"""Roles of messages that are no part of what was said."""


def messages_request(body: dict[str, Any], fold: Fold = SHORT) -> Pieces:
    yield from _beginning(body, fold)
    yield from _tools(body.get("tools"), _messages_tool, fold)
    yield from section("System", _messages_content(body.get("system"), fold))
    yield from _conversation(body.get("messages"), _messages_message, fold)


def chat_request(body: dict[str, Any], fold: Fold = SHORT) -> Pieces:
    yield from _beginning(body, fold)
    tools = body.get("tools") or [{"function": one} for one in items(body.get("functions"))]
    yield from _tools(tools, _chat_tool, fold)
    yield from _conversation(body.get("messages"), _chat_message, fold)


def responses_request(body: dict[str, Any], fold: Fold = SHORT) -> Pieces:
    yield from _beginning(body, fold)
    yield from _tools(body.get("tools"), _responses_tool, fold)
    yield from section("Instructions", _plain(body.get("instructions"), fold))
    given = body.get("input")
    entries = given if isinstance(given, list) else [{"role": "user", "content": given}]
    yield from _numbered("Input", entries, responses_item, fold)


def _beginning(body: dict[str, Any], fold: Fold) -> Pieces:
    yield f"Model: {text_of(body.get('model')) or '(none)'}"
    names = [name for name in body if name not in CONVERSATION]
    yield from each(
        names, lambda name: [f"{name}: {folded(text_of(body[name]), fold)}"], "members", fold=fold, depth=0
    )


def _plain(value: Any, fold: Fold) -> Pieces:
    if value is not None:
        yield indented(folded(text_of(value), fold))


def _conversation(messages: Any, content: Callable[[dict[str, Any], Fold], Pieces], fold: Fold) -> Pieces:
    entries = items(messages)
    if not entries and messages:
        yield from section("Messages", _plain(messages, fold))
    yield from _numbered("Messages", entries, content, fold)


def _numbered(
    title: str, entries: list[Any], content: Callable[[dict[str, Any], Fold], Pieces], fold: Fold
) -> Pieces:
    """Of each message or item its number and role, then what it says."""
    latest = _said_last(entries)

    def entry(index: int) -> Pieces:
        fields = mapping(entries[index])
        role = text_of(fields.get("role") or fields.get("type")) or "(no role)"
        is_near = index in latest and role not in _INSTRUCTING
        near = max(fold, LONG) if is_near else fold
        yield f"  {index + 1} {role}"
        yield from content(fields, near) if fields else _plain(entries[index], near)

    if entries:
        yield ""
        yield f"{title} ({len(entries)})"
        yield from each(range(len(entries)), entry, title.lower(), fold=fold)


def _said_last(entries: Sequence[Any]) -> range:
    """The indices of what a model was told last, after its last answer."""

    def is_answer(entry: Any) -> bool:
        fields = mapping(entry)
        return fields.get("role") == "assistant" or fields.get("type") in _ANSWERS

    end = len(entries)
    while end and is_answer(entries[end - 1]):
        end -= 1
    begin = end
    while begin and not is_answer(entries[begin - 1]):
        begin -= 1
    return range(begin, end)


# tools


def _tools(tools: Any, describe: Callable[[dict[str, Any]], str], fold: Fold) -> Pieces:
    def tool(one: Any) -> Pieces:
        yield indented(folded(describe(one) if isinstance(one, dict) else as_json(one), fold))
        if fold == NOTHING:
            yield indented(as_json(one), 2)

    given = items(tools)
    yield from section(f"Tools ({len(given)})", each(given, tool, "tools", fold=fold))


def _signature(name: Any, schema: Any) -> str:
    """`Read(file_path, limit?)`: the names of a tool's arguments, those that may be left out marked."""
    described = mapping(schema)
    required = {one for one in items(described.get("required")) if isinstance(one, str)}
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


def _messages_message(message: dict[str, Any], fold: Fold) -> Pieces:
    yield from _messages_content(message.get("content"), fold)


def _messages_content(content: Any, fold: Fold) -> Pieces:
    if isinstance(content, list):
        yield from each(content, lambda block: messages_block(block, fold), "blocks", fold=fold)
    else:
        yield from _plain(content, fold)


def messages_block(block: Any, fold: Fold, depth: int = 1) -> Pieces:
    """One block of content: its kind and mark, then what is in it."""
    if not isinstance(block, dict) or depth > DEEPEST_BLOCK:
        yield indented(folded(text_of(block), fold), depth)
        return
    kind, mark = text_of(block.get("type")), _mark(block)
    if kind == "text":
        if mark:
            yield heading(f"text{mark}", depth)
        yield indented(folded(text_of(block.get("text")), fold), depth + bool(mark))
    elif kind == "thinking":
        signature = block.get("signature")
        signed = f"signed{_digest(signature, fold)}" if signature else "not signed"
        yield heading(f"thinking, {signed}{mark}", depth)
        yield indented(folded(text_of(block.get("thinking")), fold), depth + 1)
    elif kind == "redacted_thinking":
        data = text_of(block.get("data"))
        yield heading(f"redacted thinking, {len(data):,} characters{_digest(data, fold)}{mark}", depth)
    elif kind.endswith("tool_use"):
        yield heading(f"call {text_of(block.get('name'))} {text_of(block.get('id'))}{mark}", depth)
        yield from arguments(block.get("input"), depth + 1, fold)
    elif kind.endswith("tool_result"):
        failed = " (error)" if block.get("is_error") else ""
        yield heading(f"result {text_of(block.get('tool_use_id'))}{failed}{mark}", depth)
        inner = block.get("content")
        parts = inner if isinstance(inner, list) else [{"type": "text", "text": text_of(inner)}]
        yield from each(
            parts, lambda part: messages_block(part, fold, depth + 1), "blocks", fold=fold, depth=depth + 1
        )
    elif kind in ("image", "document"):
        source = mapping(block.get("source"))
        yield heading(f"{kind} {_source(source)}{_digest(source.get('data'), fold)}{mark}", depth)
    else:
        rest = {name: value for name, value in block.items() if name not in ("type", "cache_control")}
        yield heading(f"{kind or '(no type)'}{mark}", depth)
        yield indented(folded(as_json(rest), fold), depth + 1)


def _digest(data: Any, fold: Fold) -> str:
    """So that data which is not shown is told from other data where nothing is left out."""
    if fold != NOTHING or not data:
        return ""
    return f" {blake2b(text_of(data).encode(errors='surrogatepass'), digest_size=4).hexdigest()}"


def _source(source: dict[str, Any]) -> str:
    encoded = source.get("data")
    if source.get("type") == "base64" and isinstance(encoded, str):
        return f"{text_of(source.get('media_type'))}, {size(encoded)}"
    return data_url(text_of(source.get("url") or source.get("file_id") or encoded))


# messages of chat completions


def _chat_message(message: dict[str, Any], fold: Fold) -> Pieces:
    if message.get("tool_call_id"):
        yield heading(f"result {text_of(message['tool_call_id'])}")
    for name in ("reasoning_content", "reasoning"):
        if message.get(name):
            yield heading("thinking")
            yield indented(folded(text_of(message[name]), fold), 2)
    content = message.get("content")
    parts = content if isinstance(content, list) else [] if content is None else [content]
    yield from each(parts, lambda part: _chat_part(part, fold), "parts", fold=fold)
    yield from each(items(message.get("tool_calls")), lambda call: _chat_call(call, fold), "calls", fold=fold)


def _chat_part(part: Any, fold: Fold) -> Pieces:
    fields = mapping(part)
    mark = _mark(fields)
    if fields.get("type") == "image_url":
        yield heading(f"image {data_url(text_of(mapping(fields.get('image_url')).get('url')))}{mark}")
    elif "text" in fields:
        if mark:
            yield heading(f"text{mark}")
        yield indented(folded(text_of(fields["text"]), fold), 1 + bool(mark))
    else:
        yield indented(folded(text_of(part), fold))


def _chat_call(call: Any, fold: Fold) -> Pieces:
    fields = mapping(call)
    function = mapping(fields.get("function"))
    yield heading(f"call {text_of(function.get('name'))} {text_of(fields.get('id'))}")
    yield from arguments(function.get("arguments"), 2, fold)


# items of Responses


def responses_item(item: dict[str, Any], fold: Fold, depth: int = 1) -> Pieces:
    """What is in one item of an input or an output."""
    kind = text_of(item.get("type")) or "message"
    if kind == "message":
        yield from _responses_content(item.get("content"), fold, depth)
    elif kind in ("function_call", "custom_tool_call"):
        yield heading(f"call {text_of(item.get('name'))} {text_of(item.get('call_id'))}", depth)
        yield from arguments(item.get("arguments") or item.get("input"), depth + 1, fold)
    elif kind in ("function_call_output", "custom_tool_call_output"):
        yield heading(f"result {text_of(item.get('call_id'))}", depth)
        yield from _responses_content(item.get("output"), fold, depth)
    elif kind == "reasoning":
        encrypted = text_of(item.get("encrypted_content"))
        shown = f"thinking, {len(encrypted):,} characters encrypted" if encrypted else "thinking"
        yield heading(shown, depth)
        thoughts = items(item.get("summary")) or items(item.get("content"))
        yield from each(
            thoughts,
            lambda part: [indented(folded(text_of(mapping(part).get("text")), fold), depth + 1)],
            "parts",
            fold=fold,
            depth=depth + 1,
        )
    elif kind == "web_search_call":
        yield from _web_search(item, fold, depth)
    else:
        rest = {name: one for name, one in item.items() if name != "type"}
        yield indented(folded(as_json(rest), fold), depth)


def _responses_content(content: Any, fold: Fold, depth: int) -> Pieces:
    parts = content if isinstance(content, list) else [content]
    yield from each(parts, lambda part: _responses_part(part, fold, depth), "parts", fold=fold, depth=depth)


def _web_search(item: dict[str, Any], fold: Fold, depth: int) -> Pieces:
    """What was searched or opened, and the addresses found."""
    action = mapping(item.get("action"))
    asked = action.get("query") or ", ".join(map(text_of, items(action.get("queries")))) or action.get("url")
    status = "" if item.get("status") == "completed" else f" ({text_of(item.get('status')) or 'no status'})"
    yield heading(f"web {text_of(action.get('type')) or 'search'} {text_of(asked)}{status}", depth)
    yield from each(
        items(action.get("sources")),
        lambda source: [heading(text_of(mapping(source).get("url") or source), depth + 1)],
        "sources",
        fold=fold,
        depth=depth + 1,
    )


def _responses_part(part: Any, fold: Fold, depth: int) -> Pieces:
    fields = mapping(part)
    if fields.get("type") == "input_image":
        yield heading(f"image {data_url(text_of(fields.get('image_url')))}", depth)
    elif fields.get("type") == "input_file":
        shown = data_url(text_of(fields.get("file_data") or fields.get("file_url")))
        yield heading(f"file {text_of(fields.get('filename'))} {shown}", depth)
    elif "text" in fields or "refusal" in fields:
        yield indented(folded(text_of(fields.get("text") or fields.get("refusal")), fold), depth)
    elif part is not None:
        yield indented(folded(text_of(part), fold), depth)
