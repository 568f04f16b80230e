"""Fields of a request by name, dropped wherever they stand and with only their bytes.

A name is the way to the field without the indices of arrays: `context_management`, `tools.strict`,
`messages.content.cache_control`. The type of an object may stand on the way as in Anthropic's errors
(`messages.content.thinking.cache_control`), and then others do not count. `cache_control.scope` is meant
in every place that has a `cache_control`. `tools.type=advisor_20260301` is a tool, block or edit of that
type, altogether; `thinking.display=updates` the field where it has that value.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

import msgspec

from .body import Body, BodyError, Edit, Place, cut, elements, members

type Ways = frozenset[tuple[str, ...]]
"""Names in parts, from where one stands; an empty one has arrived."""

ESSENTIAL = frozenset(
    {"content", "data", "id", "input", "input_schema", "max_tokens", "messages", "model", "name", "role"}
    | {"signature", "source", "stream", "system", "text", "tool_choice", "tool_use_id", "tools", "type"}
)
"""Without these a request is another one, or none."""

SYSTEM = "messages.role=system"
"""A message of that role, which becomes the user's: what it says is kept."""

_CUSTOM = "custom"
"""The type that a tool has without saying so: where it is said and refused, only that goes."""
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
"""Refused where thinking is off."""


def without(body: Body, rejected: Collection[str]) -> list[Edit]:
    """Drops these fields, and objects and arrays that they leave empty; essential ones never.

    The edits go into `Body.edited`, but not beside others that are inside the same values: they could
    overlap. What cannot be read stays. A body without any such field is searched and not parsed.
    """
    names = frozenset(_meant(body, rejected))
    marks = tuple(mark for mark in {_mark(name) for name in names} if mark in body.text)
    if not marks:
        return []
    places = {name: place for name in body.names() if (place := body.place(name))}
    return _Walk(body.text, marks).object(places, frozenset(tuple(name.split(".")) for name in names)) or []


def is_essential(name: str) -> bool:
    *above, last = name.split(".")
    key, equals, value = last.partition("=")
    if equals:
        return (key == "role" and value != "system") or (key == "type" and value in _BLOCKS)
    if {"input", "input_schema"} & set(above):  # what is in there is the user's, and the tools' own
        return True
    return last in ESSENTIAL or (last == "thinking" and "messages" in above)


def _meant(body: Body, rejected: Collection[str]) -> Iterator[str]:
    """The names with all that goes with them, less essential ones."""
    names = {name for name in rejected if not is_essential(name)}
    if SYSTEM in names:
        names.update(_OF_SYSTEM)
    thinking = body.inner("thinking")
    if names & {"thinking", f"thinking.type={thinking.get('type', str) if thinking else None}"}:
        names.add(_CLEARS_THINKING)
    for name in names:
        yield from (place + name for place in _CACHED) if name.startswith(_CACHE) else (name,)


def _mark(name: str) -> bytes:
    """What the bytes hold where this is: the key, or the value asked for."""
    return msgspec.json.encode(name.rpartition(".")[2].rpartition("=")[2])


class _Walk(NamedTuple):
    """Looks only into values that hold one of the marks. What is None has nothing left that matters."""

    raw: bytes
    marks: tuple[bytes, ...]

    def value(self, at: Place, ways: Ways) -> list[Edit] | None:
        if not any(self.raw.find(mark, at.value, at.end) >= 0 for mark in self.marks):
            return []
        try:
            if self.raw.startswith(b"[", at.value):
                return self._array(elements(self.raw, at.value, at.end), ways)
            if self.raw.startswith(b"{", at.value):
                return self.object(members(self.raw, at.value, at.end), ways)
        except BodyError:  # a key stands twice
            pass
        return []

    def _array(self, places: list[Place], ways: Ways) -> list[Edit] | None:
        cuts = [self.value(place, ways) for place in places]
        gone = {index for index, inner in enumerate(cuts) if inner is None}
        if gone and len(gone) == len(places):
            return None
        return [edit for inner in cuts for edit in inner or ()] + cut(places, gone)

    def object(self, places: Mapping[str, Place], ways: Ways) -> list[Edit] | None:
        edits, gone = [], set()
        for name, value in self._refused_values(places, ways):
            if name == "type" and value != _CUSTOM:
                return None
            if name == "role":
                edits.append(Edit(places[name].value, places[name].end, b'"user"'))
            else:
                gone.add(name)
        ways |= self._behind_type(places, ways)
        for name in places.keys() & {way[0] for way in ways}:
            below = frozenset(way[1:] for way in ways if way[0] == name)
            inner = None if () in below else self.value(places[name], below)
            if inner is not None:
                edits += inner
            elif name == "content" and "role" in places:
                return None
            elif name not in ESSENTIAL or name == "content":  # the content of a tool's result
                gone.add(name)
        if gone and len(gone) == len(places):
            return None
        return edits + cut(list(places.values()), {i for i, name in enumerate(places) if name in gone})

    def _refused_values(self, places: Mapping[str, Place], ways: Ways) -> Iterator[tuple[str, str]]:
        for way in ways:
            name, equals, value = way[0].partition("=")
            if equals and len(way) == 1 and self._text(places.get(name)) == value:
                yield name, value

    def _behind_type(self, places: Mapping[str, Place], ways: Ways) -> Ways:
        """The rest of those names that go on with the type of this object."""
        kind = self._text(places.get("type")) or _CUSTOM
        return frozenset(way[1:] for way in ways if way[0] == kind and len(way) > 1)

    def _text(self, at: Place | None) -> str | None:
        """The text at this place, less its quotes; of one of any length the beginning."""
        if at is None:
            return None
        return self.raw[at.value + 1 : min(at.end - 1, at.value + _LONGEST)].decode(errors="replace")
