"""Drops fields of a request by name, wherever they are, and changes no other bytes.

A name is the path to the field without array indices: `context_management`, `tools.strict`,
`messages.content.cache_control`. As in Anthropic's errors the type of an object may be part of the path
(`messages.content.thinking.cache_control`); the name then holds for objects of that type only.
`cache_control.scope` holds for every `cache_control`. `tools.type=advisor_20260301` is a whole tool, block or
edit of that type; `thinking.display=updates` is the field if it has that value.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

import msgspec

from .json_edit import Body, BodyError, Edit, Span, delete_items, elements, members

type FieldPaths = frozenset[tuple[str, ...]]
"""Field paths relative to the current object; `()` means the object itself."""

ESSENTIAL = frozenset(
    {"content", "data", "id", "input", "input_schema", "max_tokens", "messages", "model", "name", "role"}
    | {"signature", "source", "stream", "system", "text", "tool_choice", "tool_use_id", "tools", "type"}
)
"""Never dropped: without them the request would mean something else or be invalid."""

SYSTEM = "messages.role=system"
"""A message with this role gets the role `user`; its content stays."""

_CUSTOM = "custom"
"""The default type of a tool. If it is refused, only the field `type` is dropped, not the tool."""
_BLOCKS = frozenset({"text", "image", "document", "thinking", "redacted_thinking", "tool_use", "tool_result"})
_CACHE = "cache_control."
_CACHED = ("", "system.", "tools.", "messages.content.", "messages.content.content.")
_OF_SYSTEM = (
    "messages.clear_at",
    "messages.output_config",
    "messages.content.type=tool_addition",
    "messages.content.type=tool_removal",
)
_LONGEST = 100
"""Characters of a value that is compared."""

_CLEARS_THINKING = "context_management.edits.type=clear_thinking_20251015"
"""Refused while thinking is off."""


def edits_without(body: Body, rejected: Collection[str]) -> list[Edit]:
    """Edits for `Body.edited` that drop these fields, and the objects and arrays that become empty. Essential
    fields are never dropped.

    The edits may overlap with other edits inside the same values. Values that cannot be read stay. A body
    that holds none of the names is searched but not parsed.
    """
    names = frozenset(_expand(body, rejected))
    marks = tuple(mark for mark in {_mark(name) for name in names} if mark in body.readable)
    if not marks:
        return []
    places = {name: place for name in body.names() if (place := body.span(name))}
    return (
        _Pruner(body.readable, marks).object(places, frozenset(tuple(name.split(".")) for name in names))
        or []
    )


def is_essential(name: str) -> bool:
    """Whether a field is never dropped: `ESSENTIAL`, content blocks, everything in a tool's input or
    schema."""
    *above, last = name.split(".")
    key, equals, value = last.partition("=")
    if equals:
        return (key == "role" and value != "system") or (key == "type" and value in _BLOCKS)
    if {"input", "input_schema"} & set(above):  # their fields are the tools' own
        return True
    return last in ESSENTIAL or (last == "thinking" and "messages" in above)


def _expand(body: Body, rejected: Collection[str]) -> Iterator[str]:
    """The names without essential ones, and the fields that are only valid together with them."""
    names = {name for name in rejected if not is_essential(name)}
    if SYSTEM in names:
        names.update(_OF_SYSTEM)
    thinking = body.inner("thinking")
    if names & {"thinking", f"thinking.type={thinking.get('type', str) if thinking else None}"}:
        names.add(_CLEARS_THINKING)
    for name in names:
        yield from (place + name for place in _CACHED) if name.startswith(_CACHE) else (name,)


def _mark(name: str) -> bytes:
    """The JSON text to search for: the key, or the value after `=`."""
    return msgspec.json.encode(name.rpartition(".")[2].rpartition("=")[2])


class _Pruner(NamedTuple):
    """Skips values that hold none of the marks. Methods return None if the whole value is to be dropped."""

    raw: bytes
    marks: tuple[bytes, ...]

    def value(self, at: Span, paths: FieldPaths) -> list[Edit] | None:
        if not any(self.raw.find(mark, at.value, at.end) >= 0 for mark in self.marks):
            return []
        try:
            if self.raw.startswith(b"[", at.value):
                return self._array(elements(self.raw, at.value, at.end), paths)
            if self.raw.startswith(b"{", at.value):
                return self.object(members(self.raw, at.value, at.end), paths)
        except BodyError:  # a key stands twice
            pass
        return []

    def _array(self, places: list[Span], paths: FieldPaths) -> list[Edit] | None:
        cuts = [self.value(place, paths) for place in places]
        gone = {index for index, inner in enumerate(cuts) if inner is None}
        if gone and len(gone) == len(places):
            return None
        return [edit for inner in cuts for edit in inner or ()] + delete_items(places, gone)

    def object(self, places: Mapping[str, Span], paths: FieldPaths) -> list[Edit] | None:
        edits, gone = [], set()
        for name, value in self._refused_values(places, paths):
            if name == "type" and value != _CUSTOM:
                return None
            if name == "role":
                edits.append(Edit(places[name].value, places[name].end, b'"user"'))
            else:
                gone.add(name)
        paths |= self._after_type(places, paths)
        for name in places.keys() & {path[0] for path in paths}:
            below = frozenset(path[1:] for path in paths if path[0] == name)
            inner = None if () in below else self.value(places[name], below)
            if inner is not None:
                edits += inner
            elif name == "content" and "role" in places:
                return None
            elif name not in ESSENTIAL or name == "content":  # the content of a tool's result
                gone.add(name)
        if gone and len(gone) == len(places):
            return None
        return edits + delete_items(
            list(places.values()), {i for i, name in enumerate(places) if name in gone}
        )

    def _refused_values(self, places: Mapping[str, Span], paths: FieldPaths) -> Iterator[tuple[str, str]]:
        for path in paths:
            name, equals, value = path[0].partition("=")
            if equals and len(path) == 1 and self._text(places.get(name)) == value:
                yield name, value

    def _after_type(self, places: Mapping[str, Span], paths: FieldPaths) -> FieldPaths:
        """The rest of those paths whose next part is the type of this object."""
        kind = self._text(places.get("type")) or _CUSTOM
        return frozenset(path[1:] for path in paths if path[0] == kind and len(path) > 1)

    def _text(self, at: Span | None) -> str | None:
        """The first characters of the string at this span, without its quotes."""
        if at is None:
            return None
        return self.raw[at.value + 1 : min(at.end - 1, at.value + _LONGEST)].decode(errors="replace")
