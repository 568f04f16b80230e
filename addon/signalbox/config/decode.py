"""Decodes nodes into values of the types in `schema` and `rules`, and collects all errors with line and
path."""

import json
import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from . import document
from .document import ConflictError, Finding, Node, Scalar, hint, nearest, quoted, step, unknown
from .fields import Secret
from .secrets import UnsetError, expanded, set_in
from .typespec import TypeSpec, keys, specs

type Options = tuple[TypeSpec, ...]
"""The ways in which a value may be written."""

_JSON_PLAIN = re.compile(r"true|false|null|-?(0|[1-9]\d{0,29})(\.\d{1,30})?([eE][+-]?\d{1,2})?")


class Decoder:
    """Decodes one document. Its results are valid only while `findings` is empty."""

    def __init__(
        self, root: document.Mapping, variables: Mapping[str, str], places: Mapping[str, str] | None = None
    ) -> None:
        """`places` has `FILE:LINE` for each of the variables that an `.env` file sets."""
        self.findings: list[Finding] = []
        self._root = root
        self._variables = variables
        self._places = places or {}

    def decode(self, kind: Any, node: Node, path: str = "$") -> Any:
        """The node as a `kind`: a struct of `schema`, or a type of one of its keys."""
        options = specs(kind)
        if isinstance(node, Scalar) and node.is_null and not any(map(_is_json, options)):
            node = _nothing(options, node.line)
        spec = next((option for option in options if _fits(option, node)), None)
        if spec is None:
            return self._error(node.line, f"expected {_wanted(options)}, got {_called(node)}", path)
        value = self._as(spec, node, path, options)
        return (value,) if spec.alone else value

    def _as(self, spec: TypeSpec, node: Node, path: str, options: Options) -> Any:
        match node:
            case _ if _is_json(spec):
                return self._json(node, path)
            case Scalar():
                return self._scalar(spec, node, path, options)
            case document.Sequence():
                return self._list(spec, node, path)
            case document.Mapping() if spec.is_struct:
                return self._struct(spec.kind, node, path)
            case document.Mapping():
                return self._dict(spec, node, path)

    def _struct(self, kind: type[msgspec.Struct], node: document.Mapping, path: str) -> Any:
        before, known = len(self.findings), keys(kind)
        meant = set()
        for key in node.items.keys() - known.keys():
            self._error(node.lines[key], _unknown_key(key, kind), path)
            meant.add(nearest(key, known))
        for key, field in known.items():
            if field.required and node.get(key) is None and key not in meant:
                self._error(node.line, f'the key "{key}" is missing', path)
        values = {
            known[key].name: self.decode(known[key].type, value, step(path, key))
            for key, value in node.items.items()
            if key in known and node.get(key) is not None
        }
        if len(self.findings) > before:
            return None
        try:
            return kind(**values)
        except ConflictError as conflict:
            return self.blame(conflict, node, path)

    def _dict(self, spec: TypeSpec, node: document.Mapping, path: str) -> Any:
        key_kind, value_kind = spec.args
        (key_spec,) = specs(key_kind)
        pairs = tuple(
            (
                self._value(key_spec, key, key, node.lines[key], path, ()),
                self.decode(value_kind, value, step(path, key)),
            )
            for key, value in node.items.items()
        )
        return pairs if spec.as_pairs else dict(pairs)

    def _list(self, spec: TypeSpec, node: document.Sequence, path: str) -> Any:
        if spec.not_empty and not node.items:
            return self._error(node.line, "this list is empty", path)
        return tuple(self.decode(spec.args[0], item, step(path, i)) for i, item in enumerate(node.items))

    def _scalar(self, spec: TypeSpec, node: Scalar, path: str, options: Options) -> Any:
        try:
            if spec.reads and spec.reads.written:
                spec.reads.written(node.text)
            text = expanded(node.text, self._variables)
        except UnsetError as unset:
            if spec.kind is Secret:
                return Secret(None, str(unset))
            return self._error(node.line, str(unset), path)
        except ValueError as error:
            return self._error(node.line, str(error), path)
        return self._value(spec, text, node.text, node.line, path, options)

    def _value(self, spec: TypeSpec, text: str, written: str, line: int, path: str, options: Options) -> Any:
        """`text` as the spec, one of the options, reads it. Errors show `written`: it contains no variable's
        value."""
        if spec.kind is Literal:
            return text if text in spec.args else self._error(line, _no_choice(spec, options, written), path)
        assert spec.reads is not None
        try:
            value = spec.reads.read(text)
        except ValueError as error:
            got = f", got {quoted(written) if written else 'nothing'}" if spec.reads.shown else ""
            why = f": {error}" if str(error) else hint(written, spec.reads.words)
            return self._error(
                line, f"expected {spec.reads.what}{got}{why}{set_in(written, self._places)}", path
            )
        self._follow(spec, value, line, path)
        return value

    def _follow(self, spec: TypeSpec, value: Any, line: int, path: str) -> None:
        name = spec.refers.name(value) if spec.refers else None
        if spec.refers is None or name is None:
            return
        section = self._root.get(spec.refers.section)
        known = section.items if isinstance(section, document.Mapping) else {}
        if name not in known:
            self._error(line, unknown(spec.refers.what, name, known), path)

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
            return self._error(node.line, str(error), path)
        return json.loads(text) if node.plain and _JSON_PLAIN.fullmatch(text) else text

    def blame(self, conflict: ConflictError, node: Node, path: str = "$") -> None:
        """Adds an error found in the value that `node` was decoded into."""
        line = node.line
        for key in conflict.keys:
            if isinstance(node, document.Mapping) and isinstance(key, str):
                line, node = node.lines[key], node.items[key]
            elif isinstance(node, document.Sequence) and isinstance(key, int):
                node = node.items[key]
                line = node.line
            path = step(path, key)
        self._error(line, str(conflict), path)

    def _error(self, line: int, message: str, path: str) -> None:
        self.findings.append(Finding(line, message, path))


def _unknown_key(key: str, kind: type[msgspec.Struct]) -> str:
    """An error for an unknown key, with the nearest key here or one level below: users often write conditions
    beside `match`."""
    known = keys(kind)
    if nearest(key, known):
        return unknown("key", key, known)
    for name, field in known.items():
        below = [inner for spec in specs(field.type) if spec.is_struct for inner in keys(spec.kind)]
        if key in below:
            return f"unknown key {quoted(key)}: it belongs under {name}"
        if nearest(key, below):
            return f"{unknown('key', key, below)} It belongs under {name}"
    return unknown("key", key, known)


def _is_json(spec: TypeSpec) -> bool:
    return spec.kind is Any


def _nothing(options: Options, line: int) -> Node:
    """The meaning of null where a value is required: no keys, or no text."""
    if any(option.is_struct or option.kind is dict for option in options):
        return document.Mapping(line)
    return Scalar(line, "", plain=False)


def _fits(spec: TypeSpec, node: Node) -> bool:
    if _is_json(spec):
        return True
    match node:
        case Scalar():
            return spec.is_scalar
        case document.Sequence():
            return spec.kind is tuple
        case document.Mapping() if spec.is_struct:
            return _may_be(spec.kind, node)
        case document.Mapping():
            return spec.kind is dict


def _may_be(kind: type[msgspec.Struct], node: document.Mapping) -> bool:
    """Of several structs, the first whose `own_key` is present; one without an `own_key` takes the rest."""
    own = getattr(kind, "own_key", None)
    return own is None or own in node.items


def _no_choice(spec: TypeSpec, options: Options, written: str) -> str:
    words = _or(spec.args)
    for listed in (option for option in options if option.kind is tuple and not spec.alone):
        words += (
            f"{' or' if len(spec.args) == 1 else ', or'} a list, each item {_wanted(specs(listed.args[0]))}"
        )
    return f"expected {words}, got {quoted(written)}{hint(written, spec.args)}"


def _or(words: tuple[str, ...]) -> str:
    *some, last = words
    return f"{', '.join(some)} or {last}" if some else last


def _wanted(options: Options) -> str:
    return " or ".join(dict.fromkeys(map(_described, options)))


def _described(spec: TypeSpec) -> str:
    if spec.reads:
        return spec.reads.what
    if spec.kind is Literal:
        return ", ".join(spec.args)
    return "a list" if spec.kind is tuple else "keys and values"


def _called(node: Node) -> str:
    match node:
        case Scalar():
            return "text" if node.text else "nothing"
        case document.Sequence():
            return "a list"
        case document.Mapping():
            return "keys and values"
