"""Nodes into values of the types in `schema`, collecting every fault with its line and path."""

import json
import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from . import document
from .document import Node, Scalar
from .faults import Fault, MisfitError, nearest, shown, step, unknown
from .rules import Secret
from .shapes import Shape, keys, shapes
from .variables import UnsetError, expanded, set_in

_JSON_PLAIN = re.compile(r"true|false|null|-?(0|[1-9]\d{0,29})(\.\d{1,30})?([eE][+-]?\d{1,2})?")


class Decoder:
    """Decodes one document. What it returns is of use only while `faults` is empty."""

    def __init__(
        self, root: document.Mapping, variables: Mapping[str, str], places: Mapping[str, str] | None = None
    ) -> None:
        """`places` has `FILE:LINE` for each of the variables that an `.env` file sets."""
        self.faults: list[Fault] = []
        self._root = root
        self._variables = variables
        self._places = places or {}

    def decode(self, kind: Any, node: Node, path: str = "$") -> Any:
        """The node as a `kind` (a struct of `schema` or what such a struct's keys may hold)."""
        options = shapes(kind)
        if isinstance(node, Scalar) and node.is_null and not any(map(_is_json, options)):
            node = _nothing(options, node.line)
        shape = next((option for option in options if _fits(option, node)), None)
        if shape is None:
            return self._fault(node.line, f"expected {_wanted(options)}, got {_called(node)}", path)
        match node:
            case _ if _is_json(shape):
                return self._json(node, path)
            case Scalar():
                return self._scalar(shape, node, path)
            case document.Sequence():
                return self._list(shape, node, path)
            case document.Mapping() if shape.is_struct:
                return self._struct(shape.kind, node, path)
            case document.Mapping():
                return self._dict(shape, node, path)

    def _struct(self, kind: type[msgspec.Struct], node: document.Mapping, path: str) -> Any:
        before, known = len(self.faults), keys(kind)
        meant = set()
        for key in node.items.keys() - known.keys():
            self._fault(node.lines[key], _unknown_key(key, kind), path)
            meant.add(nearest(key, known))
        for key, field in known.items():
            if field.required and node.get(key) is None and key not in meant:
                self._fault(node.line, f'the key "{key}" is missing', path)
        values = {
            key: self.decode(known[key].type, value, step(path, key))
            for key, value in node.items.items()
            if key in known and node.get(key) is not None
        }
        if len(self.faults) > before:
            return None
        try:
            return kind(**values)
        except MisfitError as misfit:
            return self.blame(misfit, node, path)

    def _dict(self, shape: Shape, node: document.Mapping, path: str) -> Any:
        key_kind, value_kind = shape.args
        (key_shape,) = shapes(key_kind)
        values = {}
        for key, value in node.items.items():
            name = self._value(key_shape, key, key, node.lines[key], path)
            values[name] = self.decode(value_kind, value, step(path, key))
        return values

    def _list(self, shape: Shape, node: document.Sequence, path: str) -> Any:
        if shape.not_empty and not node.items:
            return self._fault(node.line, "this list is empty", path)
        return [self.decode(shape.args[0], item, step(path, i)) for i, item in enumerate(node.items)]

    def _scalar(self, shape: Shape, node: Scalar, path: str) -> Any:
        try:
            if shape.reads and shape.reads.written:
                shape.reads.written(node.text)
            text = expanded(node.text, self._variables)
        except UnsetError as unset:
            if shape.kind is Secret:
                return Secret(None, str(unset))
            return self._fault(node.line, str(unset), path)
        except ValueError as error:
            return self._fault(node.line, str(error), path)
        return self._value(shape, text, node.text, node.line, path)

    def _value(self, shape: Shape, text: str, written: str, line: int, path: str) -> Any:
        """`text` as the shape reads it. Errors show what was written, which tells no variable's value."""
        if shape.kind is Literal:
            return text if text in shape.args else self._fault(line, _no_choice(shape, written), path)
        assert shape.reads is not None
        try:
            value = shape.reads.read(text)
        except ValueError as error:
            got = f", got {shown(written) if written else 'nothing'}" if shape.reads.shown else ""
            why = f": {error}" if str(error) else ""
            return self._fault(
                line, f"expected {shape.reads.what}{got}{why}{set_in(written, self._places)}", path
            )
        self._follow(shape, value, line, path)
        return value

    def _follow(self, shape: Shape, value: Any, line: int, path: str) -> None:
        name = shape.refers.name(value) if shape.refers else None
        if shape.refers is None or name is None:
            return
        section = self._root.get(shape.refers.section)
        known = section.items if isinstance(section, document.Mapping) else {}
        if name not in known:
            self._fault(line, unknown(shape.refers.what, name, known), path)

    def _json(self, node: Node, path: str) -> Any:
        match node:
            case document.Mapping():
                return {key: self._json(value, step(path, key)) for key, value in node.items.items()}
            case document.Sequence():
                return [self._json(item, step(path, i)) for i, item in enumerate(node.items)]
            case Scalar() if node.is_null:
                return None
        try:
            text = expanded(node.text, self._variables)
        except ValueError as error:
            return self._fault(node.line, str(error), path)
        return json.loads(text) if node.plain and _JSON_PLAIN.fullmatch(text) else text

    def blame(self, misfit: MisfitError, node: Node, path: str = "$") -> None:
        """Notes a fault found in what `node` was decoded into."""
        line = node.line
        for key in misfit.keys:
            if isinstance(node, document.Mapping) and isinstance(key, str):
                line, node = node.lines[key], node.items[key]
            elif isinstance(node, document.Sequence) and isinstance(key, int):
                node = node.items[key]
                line = node.line
            path = step(path, key)
        self._fault(line, str(misfit), path)

    def _fault(self, line: int, message: str, path: str) -> None:
        self.faults.append(Fault(line, message, path))


def _unknown_key(key: str, kind: type[msgspec.Struct]) -> str:
    """The nearest key, also of a struct one level below: conditions are often written beside `match`."""
    known = keys(kind)
    if nearest(key, known):
        return unknown("key", key, known)
    for name, field in known.items():
        below = [inner for shape in shapes(field.type) if shape.is_struct for inner in keys(shape.kind)]
        if key in below:
            return f"unknown key {shown(key)}: it belongs under {name}"
        if nearest(key, below):
            return f"{unknown('key', key, below)} It belongs under {name}"
    return unknown("key", key, known)


def _is_json(shape: Shape) -> bool:
    return shape.kind is Any


def _nothing(options: tuple[Shape, ...], line: int) -> Node:
    """What null stands for where something must stand: no keys, or no text."""
    if any(option.is_struct or option.kind is dict for option in options):
        return document.Mapping(line)
    return Scalar(line, "", plain=False)


def _fits(shape: Shape, node: Node) -> bool:
    if _is_json(shape):
        return True
    match node:
        case Scalar():
            return shape.is_scalar
        case document.Sequence():
            return shape.kind is list
        case document.Mapping() if shape.is_struct:
            return _may_be(shape.kind, node)
        case document.Mapping():
            return shape.kind is dict


def _may_be(kind: type[msgspec.Struct], node: document.Mapping) -> bool:
    """Of several structs the first is meant whose own key is there; one without such a key takes the rest."""
    own = getattr(kind, "told_by", None)
    return own is None or own in node.items


def _no_choice(shape: Shape, written: str) -> str:
    *some, last = shape.args
    meant = nearest(written, shape.args)
    hint = f", did you mean {shown(meant)}?" if meant else ""
    return f"expected {', '.join(some)} or {last}, got {shown(written)}{hint}"


def _wanted(options: tuple[Shape, ...]) -> str:
    return " or ".join(dict.fromkeys(map(_described, options)))


def _described(shape: Shape) -> str:
    if shape.reads:
        return shape.reads.what
    if shape.kind is Literal:
        return ", ".join(shape.args)
    return "a list" if shape.kind is list else "keys and values"


def _called(node: Node) -> str:
    match node:
        case Scalar():
            return "text" if node.text else "nothing"
        case document.Sequence():
            return "a list"
        case document.Mapping():
            return "keys and values"
