"""Describes how values are written in rules.yaml, from Python types, for the decoder and the JSON Schema.

Annotated[T, Reads(...)]      a scalar, read by a function
Annotated[T, Refers(...)]     a scalar that names a key of another section
Annotated[T, "text"]          `text` describes the key to people
Literal["a", "b"]             one of these words
tuple[T, ...]                 a list
OneOrMore[T]                  a list that is not empty, or one item alone
dict[K, V]                    keys and values
tuple[tuple[K, V], ...]       keys and values, as pairs in order
a msgspec.Struct              keys and values by name
Any                           plain JSON
"""

from collections import abc
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
    """Raises ValueError. Its text, if any, says what exactly is wrong, and never repeats the value."""
    schema: Mapping[str, Any]
    shown: bool = True
    """Whether an error may repeat the wrong value; False if it could be a secret."""
    words: tuple[str, ...] = ()
    """Words that it may be, for "did you mean"."""
    written: Callable[[str], None] | None = None
    """Checks the text in the file, before `${NAME}` is replaced. Raises ValueError."""


class Refers(msgspec.Struct, frozen=True):
    """The value names a key of the top-level `section`. `name` gives that key, or None if there is none."""

    section: str
    what: str
    name: Callable[[Any], str | None]


_ALONE = object()
"""Marks a tuple whose only item may be written without the list."""
type OneOrMore[T] = Annotated[tuple[T, ...], _ALONE, msgspec.Meta(min_length=1)]


class TypeSpec(msgspec.Struct, frozen=True):
    """One way in which a value may be written: `kind` is a struct, tuple, dict, Literal, Any or a scalar."""

    kind: Any
    args: tuple[Any, ...] = ()
    reads: Reads | None = None
    refers: Refers | None = None
    not_empty: bool = False
    as_pairs: bool = False
    """Of a dict: the value is a tuple of pairs."""
    alone: bool = False
    """The value is the only item of a tuple."""

    @property
    def is_struct(self) -> bool:
        return isinstance(self.kind, type) and issubclass(self.kind, msgspec.Struct) and not self.reads

    @property
    def is_scalar(self) -> bool:
        return self.reads is not None or self.kind is Literal


@cache
def specs(kind: Any) -> tuple[TypeSpec, ...]:
    """The ways in which a `kind` may be written, without None (a key that is not set)."""
    kind, notes = _bare(kind)
    origin, args = get_origin(kind), get_args(kind)
    reads = next((note for note in notes if isinstance(note, Reads)), None)
    if reads is not None:
        refers = next((note for note in notes if isinstance(note, Refers)), None)
        return (TypeSpec(origin or kind, args, reads, refers),)
    if origin in (Union, UnionType):
        return tuple(spec for arg in args if arg is not NoneType for spec in specs(arg))
    if origin is tuple and get_origin(args[0]) is tuple:
        return (TypeSpec(dict, get_args(args[0]), as_pairs=True),)
    if origin is tuple:
        not_empty = any(isinstance(note, msgspec.Meta) and note.min_length for note in notes)
        listed = TypeSpec(tuple, args[:1], not_empty=not_empty)
        if _ALONE not in notes:
            return (listed,)
        return (*(msgspec.structs.replace(spec, alone=True) for spec in specs(args[0])), listed)
    return (TypeSpec(dict if origin is abc.Mapping else origin or kind, args),)


def about(kind: Any) -> str:
    """The description of a key for people."""
    return next((note for note in _bare(kind)[1] if isinstance(note, str)), "")


@cache
def keys(struct: type[msgspec.Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    """The fields by the name that the user writes."""
    return {field.encode_name: field for field in msgspec.structs.fields(struct)}


def _bare(kind: Any) -> tuple[Any, list[Any]]:
    notes: list[Any] = []
    while True:
        if isinstance(kind, TypeAliasType):
            kind = kind.__value__
        elif isinstance(get_origin(kind), TypeAliasType):
            kind = get_origin(kind).__value__[get_args(kind)]
        elif get_origin(kind) is Annotated:
            kind, *more = get_args(kind)
            notes += more
        else:
            return kind, notes
