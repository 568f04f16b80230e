"""What of a request a provider of chat completions is not told, by name, for people."""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import msgspec

from signalbox.translate.incoming import Incoming, Tool
from signalbox.translate.shapes import as_list, as_object

_UNTOLD = frozenset({"cache_control", "diagnostics", "metadata"})
"""Change nothing in an answer, and Claude Code sends them with every request."""
_READ = frozenset({*Incoming.__struct_fields__, "model"} - {"thread", "compaction"})
_SPELLED = {
    "max_tokens": ("max_tokens", "max_completion_tokens"),
    "temperature": ("temperature",),
    "top_k": ("top_k",),
    "top_p": ("top_p",),
}
"""Fields that go under one of these names, where the provider takes them."""
_EMPTY = (b"null", b"[]", b"{}", b'""')
_PLAIN = re.compile(r"[\w.-]{1,40}")
_MOST = 8

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


def dropped(raw: bytes, asked: Incoming, sent: Mapping[str, Any]) -> str:
    """Names of fields and tools of the Messages body `raw` that have no counterpart in the chat body `sent`,
    separated by commas; empty where there are none. `stop_sequences` are named where some of them are gone.

    Not named: what says nothing (null, an empty list), what changes no answer (`metadata`, `diagnostics`,
    `cache_control`), `thinking` and effort, which each model takes as far as it can, and what is inside
    messages.
    """
    names = [name if _PLAIN.fullmatch(name) else "(odd name)" for name in _names(raw, asked, sent)]
    more = [f"{len(names) - _MOST} more"] if len(names) > _MOST else []
    return ", ".join([*names[:_MOST], *more])


def _names(raw: bytes, asked: Incoming, sent: Mapping[str, Any]) -> Iterator[str]:
    fields: dict[str, msgspec.Raw] = {}
    with suppress(UnicodeDecodeError):  # a name that is no text
        fields = _fields.decode(raw)
    for name, value in fields.items():
        if not _is_told(name, asked, sent) and bytes(value) not in _EMPTY:
            yield name
    once = as_object(asked.tool_choice).get("disable_parallel_tool_use") is True
    if once and "tools" in sent and "parallel_tool_calls" not in sent:
        yield "disable_parallel_tool_use"
    for tool in as_list(asked.tools):
        if isinstance(tool, Tool) and not tool.is_function:
            yield f"tools.{tool.shown}"


def _is_told(name: str, asked: Incoming, sent: Mapping[str, Any]) -> bool:
    if name == "stop_sequences":
        stops = asked.stop_sequences
        return isinstance(stops, list) and len(stops) == len(sent.get("stop", []))
    spelled = _SPELLED.get(name)
    return not sent.keys().isdisjoint(spelled) if spelled else name in _READ or name in _UNTOLD
