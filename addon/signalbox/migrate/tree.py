"""Access to nested configurations, such as JSON and YAML give, with the place of what is wrong."""

import re
from typing import Any

from signalbox.migrate.form import SourceError


class Tree:
    """A mapping and its place. Each key is taken by name; `left` has those that were not.

    Where a method takes several names, the first that has a value counts: configurations spell a key in
    several ways.
    """

    def __init__(self, value: dict[Any, Any], place: str = "$") -> None:
        self._value = value
        self._taken: set[str] = set()
        self.place = place

    def __contains__(self, name: str) -> bool:
        return name in self._value

    @property
    def left(self) -> list[str]:
        return [
            str(name)
            for name, value in self._value.items()
            if name not in self._taken and value not in _EMPTY
        ]

    @property
    def names(self) -> list[str]:
        return [str(name) for name in self._value]

    def at(self, name: str | int) -> str:
        """The place of one value: `$.Providers[0].name`."""
        if isinstance(name, int):
            return f"{self.place}[{name}]"
        return f"{self.place}.{name}" if re.fullmatch(r"[A-Za-z0-9_-]+", name) else f'{self.place}["{name}"]'

    def take(self, *names: str) -> Any:
        """The value as it is; None without one."""
        return self._found(names)[1]

    def text(self, *names: str) -> str:
        """Empty without a value. A number counts as its text."""
        name, value = self._found(names)
        if value is None:
            return ""
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise SourceError("expected text", self.at(name))
        return str(value).strip()

    def number(self, *names: str) -> float | None:
        """A number from 0, perhaps written as text."""
        name, value = self._found(names)
        if value in (None, ""):
            return None
        try:
            number = -1.0 if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = -1.0
        if not 0 <= number < 1e15:
            raise SourceError("expected a number", self.at(name))
        return number

    def flag(self, *names: str) -> bool | None:
        name, value = self._found(names)
        if value is None or isinstance(value, bool):
            return value
        if value in (0, 1):
            return bool(value)
        raise SourceError("expected true or false", self.at(name))

    def tree(self, *names: str) -> "Tree":
        """An empty one without a value."""
        name, value = self._found(names)
        if value is None:
            return Tree({}, self.at(name))
        if not isinstance(value, dict):
            raise SourceError("expected keys and values", self.at(name))
        return Tree(value, self.at(name))

    def trees(self, *names: str) -> list["Tree"]:
        """A list of mappings; empty without a value."""
        found = []
        for place, value in self.items(*names):
            if not isinstance(value, dict):
                raise SourceError("expected keys and values", place)
            found.append(Tree(value, place))
        return found

    def texts(self, *names: str) -> list[str]:
        """A list of texts; empty without a value."""
        found = []
        for place, value in self.items(*names):
            if not isinstance(value, str):
                raise SourceError("expected text", place)
            found.append(value)
        return found

    def items(self, *names: str) -> list[tuple[str, Any]]:
        """(place, value) of each item of a list; empty without a value."""
        name, value = self._found(names)
        if value is None:
            return []
        if not isinstance(value, list):
            raise SourceError("expected a list", self.at(name))
        return [(f"{self.at(name)}[{i}]", item) for i, item in enumerate(value)]

    def _found(self, names: tuple[str, ...]) -> tuple[str, Any]:
        self._taken.update(names)
        for name in names:
            if (value := self._value.get(name)) is not None:
                return name, value
        return names[0], None


_EMPTY: tuple[Any, ...] = (None, "", False, [], {})
