"""What the types in `schema` say about how a value is written, for the decoder and the JSON Schema alike.

A scalar's type is `Annotated[T, Reads(...)]`, a value that names something else in the file is marked
with `Refers`, and a plain string in `Annotated` describes a key to people.
"""

from collections.abc import Callable, Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeAliasType, Union, get_args, get_origin

import msgspec


class Reads(msgspec.Struct, frozen=True):
    """How a scalar becomes a value."""

    what: str
    """For people, after "expected": `a duration such as 30s or 5m`."""
    read: Callable[[str], Any]
    """Raises ValueError; its text, if any, says what exactly is wrong and never repeats the value."""
    schema: Mapping[str, Any]
    shown: bool = True
    """Whether a faulty value may be repeated in the error (no: it could be a secret)."""
    written: Callable[[str], None] | None = None
    """Looks at the text as it stands in the file, before `${NAME}` is replaced. Raises ValueError too."""


class Refers(msgspec.Struct, frozen=True):
    """The value names a key of the top-level `section`; `name` gets that name, None for no reference."""

    section: str
    what: str
    name: Callable[[Any], str | None]


class Shape(msgspec.Struct, frozen=True):
    """One way in which a value may be written: `kind` is a struct, list, dict, Literal, Any or a scalar."""

    kind: Any
    args: tuple[Any, ...] = ()
    reads: Reads | None = None
    refers: Refers | None = None
    not_empty: bool = False

    @property
    def is_struct(self) -> bool:
        return isinstance(self.kind, type) and issubclass(self.kind, msgspec.Struct) and not self.reads

    @property
    def is_scalar(self) -> bool:
        return self.reads is not None or self.kind is Literal


@cache
def shapes(kind: Any) -> tuple[Shape, ...]:
    """The ways in which a `kind` may be written, None (a key left unset) aside."""
    kind, notes = _bare(kind)
    reads = next((note for note in notes if isinstance(note, Reads)), None)
    if reads is None and get_origin(kind) in (Union, UnionType):
        return tuple(shape for arg in get_args(kind) if arg is not NoneType for shape in shapes(arg))
    refers = next((note for note in notes if isinstance(note, Refers)), None)
    not_empty = any(isinstance(note, msgspec.Meta) and note.min_length for note in notes)
    return (Shape(get_origin(kind) or kind, get_args(kind), reads, refers, not_empty),)


def about(kind: Any) -> str:
    """What a key's type says to people."""
    return next((note for note in _bare(kind)[1] if isinstance(note, str)), "")


@cache
def keys(struct: type[msgspec.Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    return {field.name: field for field in msgspec.structs.fields(struct)}


def _bare(kind: Any) -> tuple[Any, list[Any]]:
    notes: list[Any] = []
    while True:
        if isinstance(kind, TypeAliasType):
            kind = kind.__value__
        elif get_origin(kind) is Annotated:
            kind, *more = get_args(kind)
            notes += more
        else:
            return kind, notes
