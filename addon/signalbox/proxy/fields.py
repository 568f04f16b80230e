"""mitmproxy's `Headers` with a quicker look at them."""

from collections.abc import Iterable
from typing import Any, Self

from mitmproxy import http


class QuickHeaders(http.Headers):
    """mitmproxy converts every name for each look at one. Here only names of the same length are."""

    _sound: tuple[tuple[bytes, bytes], ...] | None = None
    """The fields as they were found to be sound."""

    @classmethod
    def of(cls, fields: Iterable[tuple[bytes, bytes]]) -> Self:
        """Of names and values that are bytes, which is not checked again."""
        made = cls.__new__(cls)
        made.fields = tuple(fields)
        return made

    @classmethod
    def read(cls, fields: Iterable[tuple[bytes, bytes]]) -> Self:
        """Of a head that was read: names are tokens, and what is said of the body's length is sound."""
        made = cls.of(fields)
        made._sound = made.fields
        return made

    @property
    def is_sound(self) -> bool:
        """Whether nothing has changed since they were read, as usual ones: validating finds no fault."""
        return self._sound is self.fields

    def get_all(self, name: str | bytes) -> list[str]:
        key = _bytes(name).lower()
        size = len(key)
        return [
            value.decode("utf-8", "surrogateescape")
            for field, value in self.fields
            if len(field) == size and field.lower() == key
        ]

    def __getitem__(self, name: str | bytes) -> str:
        found = self.get_all(name)
        if not found:
            raise KeyError(name)
        return found[0] if len(found) == 1 else ", ".join(found)

    def get(self, name: str | bytes, default: Any = None) -> Any:
        found = self.get_all(name)
        return default if not found else found[0] if len(found) == 1 else ", ".join(found)

    def set_all(self, name: str | bytes, values: Iterable[str | bytes]) -> None:
        """The first fields of this name get the values, further fields are removed, further values added."""
        key, left = _bytes(name), [_bytes(value) for value in values]
        wanted, size, fields = key.lower(), len(key), []
        left.reverse()
        for field in self.fields:
            if len(field[0]) != size or field[0].lower() != wanted:
                fields.append(field)
            elif left:
                fields.append((field[0], left.pop()))
        fields += [(key, value) for value in reversed(left)]
        self.fields = tuple(fields)

    def __contains__(self, name: object) -> bool:
        key = _bytes(name).lower()  # type: ignore[arg-type]  # mitmproxy's raises TypeError of others too
        size = len(key)
        return any(len(field) == size and field.lower() == key for field, _ in self.fields)


def _bytes(name: str | bytes) -> bytes:
    if isinstance(name, str):
        return name.encode("utf-8", "surrogateescape")
    if isinstance(name, bytes):
        return name
    raise TypeError(f"Expected str or bytes, but got {type(name).__name__}.")
