"""Validates values by the TypedDicts of OpenAI's package."""

from collections.abc import Iterable, Iterator
from typing import Any, Literal, get_args, get_type_hints

from pydantic import ConfigDict, TypeAdapter
from typing_extensions import is_typeddict


def adapter(kind: Any, extra: Literal["forbid", "ignore"]) -> TypeAdapter[Any]:
    """Further fields of any object in it are ignored or refused."""
    for typed in _inside(kind, set()):
        typed.__pydantic_config__ = ConfigDict(extra=extra)
    return TypeAdapter(kind)


def _inside(kind: Any, seen: set[Any]) -> Iterator[Any]:
    if is_typeddict(kind) and kind not in seen:
        seen.add(kind)
        yield kind
        for inner in get_type_hints(kind).values():
            yield from _inside(inner, seen)
    for inner in get_args(kind):
        yield from _inside(inner, seen)


def read_all(value: Any) -> None:
    """Pydantic validates an Iterable only when it is read."""
    if isinstance(value, dict):
        value = value.values()
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        for one in value:
            read_all(one)
