"""The bodies that properties of translation are tested with reach what can be in one."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings

from tests.support.chat_bodies import DONE_KINDS, MESSAGES


@pytest.mark.slow
def test_these_histories_hold_every_kind_of_block_in_every_order():
    seen: set[str] = set()

    @settings(max_examples=1000, derandomize=True, database=None)
    @given(MESSAGES)
    def look(messages):
        seen.update(_seen(messages))

    look()
    assert EVERYTHING.difference(seen) == set()


EVERYTHING = {
    *("text", "image", "document", "search_result", "thinking", "redacted_thinking", "tool_use"),
    *("tool_result", "tool_reference", "tool_addition", "tool_removal", "server_tool_use", "mcp_tool_use"),
    *("container_upload", "compaction", "fallback", "a result of Anthropic's own tools"),
    *("base64 source", "url source", "file source", "text source", "content source"),
    *("an image in a result", "a document in a result", "a result without content", "an error"),
    *("a result before text", "a result after text", "a result given twice", "a result without a call"),
    *("a missing result", "a system message before results", "an id used twice", "results not in order"),
    *("an empty text", "an empty list", "no content", "a strange content", "a strange role"),
    "the last word is the assistant's",
}


def _seen(messages: list[dict[str, Any]]) -> Iterator[str]:
    calls: list[str] = []
    before = ""
    for message in messages:
        role, content = message["role"], message.get("content")
        yield from _shapes(role, content)
        blocks = [block for block in content if _type(block)] if isinstance(content, list) else []
        yield from _kinds(blocks)
        results = [block["tool_use_id"] for block in blocks if _result_id(block)]
        if results and before == "system":
            yield "a system message before results"
        if role == "user" and calls:
            yield from _pairing(calls, results)
        elif results and not calls:
            yield "a result without a call"
        if role != "system":
            calls = [block["id"] for block in blocks if _type(block) == "tool_use" and _is_text(block, "id")]
        before = role
        if role == "assistant" and message is messages[-1] and not calls:
            yield "the last word is the assistant's"


def _shapes(role: Any, content: Any) -> Iterator[str]:
    if role not in ("user", "assistant", "system"):
        yield "a strange role"
    yield {"": "an empty text", "[]": "an empty list", "None": "no content"}.get(str(content), "content")
    if not isinstance(content, str | list | None):
        yield "a strange content"


def _kinds(blocks: list[Any]) -> Iterator[str]:
    types = [_type(block) for block in blocks]
    for first, second in pairwise(types):
        if {first, second} == {"text", "tool_result"}:
            yield "a result before text" if second == "text" else "a result after text"
    for block in blocks:
        yield "a result of Anthropic's own tools" if _type(block) in DONE_KINDS else _type(block)
        if isinstance(source := block.get("source"), dict):
            yield f"{source.get('type')} source"
        inner = block.get("content")
        if _result_id(block):
            if inner is None:
                yield "a result without content"
            if block.get("is_error") is True:
                yield "an error"
            for kind in map(_type, inner if isinstance(inner, list) else []):
                yield from (kind, f"a{'n' if kind == 'image' else ''} {kind} in a result")


def _pairing(calls: list[str], results: list[str]) -> Iterator[str]:
    if len(set(results)) < len(results):
        yield "a result given twice"
    if set(results) - set(calls):
        yield "a result without a call"
    if set(calls) - set(results):
        yield "a missing result"
    if len(set(calls)) < len(calls):
        yield "an id used twice"
    if len(set(calls)) == len(calls) and results[:2] == calls[1::-1] != calls[:2]:
        yield "results not in order"


def _type(block: Any) -> str:
    found = block.get("type") if isinstance(block, dict) else None
    return found if isinstance(found, str) else ""


def _result_id(block: Any) -> bool:
    return _type(block) == "tool_result" and _is_text(block, "tool_use_id")


def _is_text(block: dict[str, Any], field: str) -> bool:
    return isinstance(block.get(field), str)
