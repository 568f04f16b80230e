"""Edits a JSON object without changing the bytes of its other parts.

msgspec decodes one level of an object to the exact bytes of each value. A walk over key, colon, value and
comma from the front gives the span of every value. A change is then a splice, and all other bytes stay.
"""

import codecs
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple, Self

import msgspec

_SPACE = rb"[ \t\n\r]*+"
_LEAD = re.compile(_SPACE)
_KEY = rb'%b("[^"\\]*+(?:\\.[^"\\]*+)*+")%b:%b' % (_SPACE, _SPACE, _SPACE)
_FIRST_MEMBER, _NEXT_MEMBER = (re.compile(_SPACE + mark + _KEY, re.DOTALL) for mark in (rb"\{", b","))
_FIRST_ELEMENT, _NEXT_ELEMENT = (re.compile(_SPACE + mark + _SPACE + b"()") for mark in (rb"\[", b","))
_END_OF_OBJECT, _END_OF_ARRAY = (re.compile(_SPACE + mark) for mark in (rb"\}", rb"\]"))

_LONE_SURROGATE = re.compile(
    rb"(?<!\\)((?:\\\\)*+)"
    rb"(?:(\\u[dD][89abAB][\da-fA-F]{2}\\u[dD][c-fC-F])|\\u[dD]([89a-fA-F][\da-fA-F]{2}))"
)
"""The escapes of a surrogate pair (the third group is None), or of one half without the other."""

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_array = msgspec.json.Decoder(list[msgspec.Raw])
_decoder: Callable[[Any], msgspec.json.Decoder[Any]] = cache(msgspec.json.Decoder)
"""By type: to make one takes longer than to use it."""
_utf8 = codecs.getincrementaldecoder("utf-8")
_PIECE = 64 * 1024
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for JSON that it cannot decode."""


class BodyError(ValueError):
    """Not one JSON object (for `elements`: array) in UTF-8, nested too deeply, or with a duplicate key."""


class Edit(NamedTuple):
    """`raw[start:end]` becomes `new`."""

    start: int
    end: int
    new: bytes


class Span(NamedTuple):
    """The byte offsets of a member of an object or an element of an array."""

    start: int
    """Offset of the key; in an array the same as `value`."""
    value: int
    end: int


def splice(raw: bytes, edits: Iterable[Edit]) -> bytes:
    """`raw` with all edits; without edits the same object. Raises ValueError if two overlap."""
    pieces: list[bytes | memoryview] = []
    view, at = memoryview(raw), 0
    for start, end, new in sorted(edits, key=lambda edit: (edit.start, edit.end)):
        if start < at:
            raise ValueError(f"edits overlap at byte {start}")
        pieces += view[at:start], new
        at = end
    return b"".join((*pieces, view[at:])) if pieces else raw


def members(raw: bytes, start: int = 0, end: int | None = None) -> dict[str, Span]:
    """The spans of an object's members, by name and in order. Raises BodyError."""
    try:
        values: dict[str, msgspec.Raw] = _object.decode(memoryview(raw)[start:end])
    except UNREADABLE as error:
        raise BodyError(f"not a JSON object: {error}") from None
    places = _places(raw, start, values.values(), _FIRST_MEMBER, _NEXT_MEMBER, _END_OF_OBJECT)
    return dict(zip(values, places, strict=True))


def elements(raw: bytes, start: int = 0, end: int | None = None) -> list[Span]:
    """The spans of an array's elements. Raises BodyError."""
    try:
        values: list[msgspec.Raw] = _array.decode(memoryview(raw)[start:end])
    except UNREADABLE as error:
        raise BodyError(f"not a JSON array: {error}") from None
    return _places(raw, start, values, _FIRST_ELEMENT, _NEXT_ELEMENT, _END_OF_ARRAY)


def _places(
    raw: bytes,
    at: int,
    values: Iterable[msgspec.Raw],
    first: re.Pattern[bytes],
    following: re.Pattern[bytes],
    last: re.Pattern[bytes],
) -> list[Span]:
    """Walks valid JSON. A duplicate key shows as a value that does not match, or as a comma at the end."""
    places: list[Span] = []
    before = first
    for value in values:
        head, view = before.match(raw, at), memoryview(value)
        if head is None or not raw.startswith(view, head.end()):
            raise BodyError("a key stands twice in one object")
        at = head.end() + len(view)
        places.append(Span(head.start(1), head.end(), at))
        before = following
    if places and last.match(raw, at) is None:
        raise BodyError("a key stands twice in one object")
    return places


def _end(pattern: re.Pattern[bytes], raw: bytes, at: int) -> int:
    found = pattern.match(raw, at)
    return found.end() if found else at


def delete_items(places: Sequence[Span], gone: Collection[int]) -> list[Edit]:
    """Edits that delete the entries with these indices from their object or array, each with one comma."""
    kept = [index for index in range(len(places)) if index not in gone]
    if not gone or not places:
        return []
    if not kept:
        return [Edit(places[0].start, places[-1].end, b"")]
    edits = [
        Edit(places[index].start, places[index + 1].start, b"") for index in sorted(gone) if index < kept[-1]
    ]
    if kept[-1] + 1 < len(places):
        edits.append(Edit(places[kept[-1]].end, places[-1].end, b""))
    return edits


def _check_utf8(raw: bytes) -> None:
    """Raises UnicodeDecodeError. In pieces: one text of a large body would be megabytes of new memory, which
    takes longer to get than to fill."""
    if raw.isascii():
        return
    decoder, view = _utf8(), memoryview(raw)
    for at in range(0, len(raw), _PIECE):
        decoder.decode(view[at : at + _PIECE])
    decoder.decode(b"", final=True)


def readable(raw: bytes) -> bytes:
    """`raw` with each escaped half of a surrogate pair replaced by an escaped private character.

    JavaScript writes such halves if a text was cut inside a character
    (https://tc39.es/ecma262/#sec-quotejsonstring); strict JSON decoders refuse them.
    """
    return _without_halves(raw, lambda half: rb"\uE" + half[3])


def _without_halves(raw: bytes, instead: Callable[[re.Match[bytes]], bytes]) -> bytes:
    return _LONE_SURROGATE.sub(lambda half: half[0] if half[2] else half[1] + instead(half), raw)


def whole_characters(text: str) -> str:
    """`text` with U+FFFD for lone halves of surrogate pairs; two halves of one pair become their
    character."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


class Body:
    """A JSON object. `raw` never changes; `edited` returns the bytes of a changed copy.

    `readable` is what is decoded: as long as `raw`, and equal to it except for lone halves of surrogate
    pairs.
    """

    def __init__(self, raw: bytes, places: Mapping[str, Span], text: bytes) -> None:
        self.raw = raw
        self.readable = text
        self._places = places
        self._decoded: dict[tuple[str, Any], Any] = {}

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Decodes the top level only. Raises BodyError."""
        try:
            _check_utf8(raw)
        except UnicodeDecodeError:
            raise BodyError("not UTF-8") from None
        try:
            return cls(raw, members(raw), raw)
        except BodyError:
            text = readable(raw)
            if text == raw:
                raise
            return cls(raw, members(text), text)

    @property
    def whole(self) -> bytes:
        """For what is sent on in another form: U+FFFD stands for each lone half. Unlike in `readable`, two
        names may become the same."""
        return self.raw if self.readable is self.raw else _without_halves(self.raw, lambda _: rb"\ufffd")

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def names(self) -> list[str]:
        return list(self._places)

    def span(self, name: str) -> Span | None:
        return self._places.get(name)

    def value(self, name: str) -> bytes | None:
        """The bytes of one value, unchanged."""
        place = self._places.get(name)
        return None if place is None else self.raw[place.value : place.end]

    def view(self, name: str) -> memoryview | None:
        """What is decoded of one value, without a copy."""
        place = self._places.get(name)
        return None if place is None else memoryview(self.readable)[place.value : place.end]

    def get[T](self, name: str, type: type[T]) -> T | None:
        """The decoded value (cached); None if the field is absent or has another type."""
        key = (name, type)
        if key not in self._decoded:
            self._decoded[key] = self._decode(name, _decoder(type).decode)
        found: T | None = self._decoded[key]
        return found

    def decode[T](self, name: str, decoder: msgspec.json.Decoder[T]) -> T | None:
        """`get` with a decoder that was made before."""
        key = (name, decoder)
        if key not in self._decoded:
            self._decoded[key] = self._decode(name, decoder.decode)
        found: T | None = self._decoded[key]
        return found

    def _decode(self, name: str, decode: Callable[[memoryview], Any]) -> Any:
        if (view := self.view(name)) is None:
            return None
        try:
            return decode(view)
        except UNREADABLE:
            return None

    def inner(self, name: str) -> "Body | None":
        """The object in one field; None if there is none, or it has a duplicate key."""
        place = self._places.get(name)
        if place is None:
            return None
        raw, text = (whole[place.value : place.end] for whole in (self.raw, self.readable))
        try:
            return Body(raw, members(text), text)
        except BodyError:
            return None

    def set(self, name: str, value: bytes) -> Edit:
        """An edit that replaces the value, or appends the field. For several fields use `edited`."""
        place = self._places.get(name)
        if place is None:
            return self._append({name: value}, after_others=bool(self._places))
        return Edit(place.value, place.end, value)

    def drop(self, name: str) -> Edit | None:
        """An edit that deletes the field and one comma; None if it is absent."""
        names = self.names()
        return delete_items(list(self._places.values()), {names.index(name)})[0] if name in names else None

    def edited(
        self, set: Mapping[str, bytes] = {}, drop: Collection[str] = (), edits: Iterable[Edit] = ()
    ) -> bytes:
        """The bytes with all these changes; `raw` itself without changes.

        `edits` are inside values, or delete whole fields as `drop` does; they are ignored inside a field that
        is set or dropped. A field both set and dropped is set.
        """
        edits = list(edits)
        if not (edits or drop) and set.keys() <= self._places.keys():
            return splice(self.raw, [self.set(name, value) for name, value in set.items()])
        names, places = self.names(), list(self._places.values())
        gone = {*drop, *self._covered(edits)} - set.keys()
        kept = [self._places[name] for name in names if name not in gone and name not in set]
        changes = [
            edit for edit in edits if any(at.value <= edit.start and edit.end <= at.end for at in kept)
        ]
        changes += delete_items(places, {names.index(name) for name in gone if name in names})
        changes += [self.set(name, value) for name, value in set.items() if name in names]
        absent = {name: value for name, value in set.items() if name not in names}
        if absent:
            changes.append(self._append(absent, after_others=not gone.issuperset(names)))
        return splice(self.raw, changes)

    def _covered(self, edits: Sequence[Edit]) -> Iterator[str]:
        """The fields that an edit deletes as a whole."""
        for name, place in self._places.items():
            if any(not edit.new and edit.start <= place.start and place.end <= edit.end for edit in edits):
                yield name

    def _append(self, fields: Mapping[str, bytes], after_others: bool) -> Edit:
        ends = [place.end for place in self._places.values()]
        at = ends[-1] if ends else _end(_LEAD, self.raw, 0) + 1
        new = b",".join(msgspec.json.encode(name) + b":" + value for name, value in fields.items())
        return Edit(at, at, b"," + new if after_others else new)
