"""Reads rules.yaml into a tree of nodes with line numbers.

Scalars stay text (`on`, `no`, `08:30`), because the meaning of a scalar depends on its key. The tree is built
from the parser's events without recursion, so that no file can exhaust the stack, however deep it is.
"""

import difflib
import re
from collections.abc import Iterable, Iterator

import msgspec
import yaml

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NOT_YAML = re.compile(r"[^\t\n\r -~\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_DEEPEST = 64
_LARGEST = 1_000_000
"""Nodes after aliases are expanded. A few nested aliases can expand to billions."""


class Finding(msgspec.Struct, frozen=True, order=True):
    """One error or warning. `line` counts from 1, `path` reads like `$.rules[0].to`."""

    line: int
    message: str
    path: str = "$"

    def within(self, file: str) -> str:
        """One line for people: `rules.yaml:12: unknown key "modle" (at $.rules[0])`."""
        return f"{file}:{self.line}: {self.message} (at {self.path})"


class ConflictError(ValueError):
    """Keys that exclude each other. `keys` is the path from the value that raises it to the wrong part."""

    def __init__(self, message: str, *keys: str | int) -> None:
        super().__init__(message)
        self.keys = keys


def quoted(text: str) -> str:
    """`text` in quotes, on one line and not too long."""
    short = text if len(text) <= 60 else text[:57] + "..."
    return '"' + "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in short) + '"'


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The one of `known` that was probably meant; upper and lower case count as equal."""
    by_lower = {one.lower(): one for one in known}
    return next((by_lower[one] for one in difflib.get_close_matches(word.lower(), by_lower, n=1)), None)


def hint(word: str, known: Iterable[str]) -> str:
    """`, did you mean "model"?`; empty if nothing is near."""
    meant = nearest(word, known)
    return f", did you mean {quoted(meant)}?" if meant else ""


def unknown(what: str, word: str, known: Iterable[str]) -> str:
    """`unknown key "modle", did you mean "model"?`"""
    return f"unknown {what} {quoted(word)}{hint(word, known)}"


def step(path: str, key: str | int) -> str:
    """The path one step further: `$.rules`, `$.rules[0]`, `$.rename["*haiku*"]`."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}" if key.replace("-", "_").isidentifier() else f"{path}[{quoted(key)}]"


class Scalar(msgspec.Struct, frozen=True):
    line: int
    text: str
    plain: bool = True
    """Written without quotes."""
    size: int = 1

    @property
    def is_null(self) -> bool:
        return self.plain and self.text in ("", "~", "null")


class Sequence(msgspec.Struct, frozen=True):
    line: int
    items: tuple["Node", ...]
    size: int = 1


class Mapping(msgspec.Struct, frozen=True):
    line: int
    items: dict[str, "Node"] = {}
    lines: dict[str, int] = {}
    """Line of each key."""
    size: int = 1

    def get(self, key: str) -> "Node | None":
        """The value of `key`; None if it is missing or null, which means the same."""
        node = self.items.get(key)
        return None if isinstance(node, Scalar) and node.is_null else node


type Node = Scalar | Sequence | Mapping


class DocumentError(Exception):
    """The text is not a YAML document with rules."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.message)
        self.finding = finding


def decode_utf8(data: bytes) -> str:
    """The file's bytes as text. Raises DocumentError where they are not UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DocumentError(Finding(line, "this is not UTF-8 text: save the file as UTF-8")) from None


def read_yaml(text: str) -> tuple[Mapping, list[Finding]]:
    """The document and the duplicate keys found in it. Raises DocumentError.

    An empty document is an empty mapping.
    """
    if bad := _NOT_YAML.search(text):
        line = text.count("\n", 0, bad.start()) + 1
        raise DocumentError(Finding(line, f"the character U+{ord(bad[0]):04X} may not stand in YAML"))
    composer = _Composer()
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            composer.take(event)
    except yaml.MarkedYAMLError as error:
        raise DocumentError(_syntax_error(error, text)) from None
    root = composer.root
    if root is None or (isinstance(root, Scalar) and root.is_null):
        return Mapping(1), []
    if not isinstance(root, Mapping):
        raise DocumentError(Finding(root.line, "expected keys and values, such as providers: and rules:"))
    return root, composer.duplicates


def _syntax_error(error: yaml.MarkedYAMLError, text: str) -> Finding:
    mark, context = error.problem_mark, error.context_mark
    lines = text.splitlines() or [""]
    line = min(mark.line + 1, len(lines)) if mark else 1  # the end of the file is on its last line
    here = lines[line - 1]
    message = error.problem or "this is not YAML"
    if error.context:
        since = f" (from line {context.line + 1})" if context and context.line + 1 < line else ""
        message = f"{error.context}{since}: {message}"
    if "scanning an alias" in message:
        message = "put globs in quotes (YAML reads an unquoted * as an alias)"
    elif mark and here[mark.column : mark.column + 1] == "\t":
        message = "tabs may not indent: use spaces"
    elif "maximum nesting depth" in message:  # libyaml's own limit, which its scanner meets before us
        message = f"nested more than {_DEEPEST} deep"
    elif "flow mapping" in message and "${" in here:
        message += ': put ${...} in quotes where it stands between "{" and "}"'
    return Finding(line, message)


class _Open(msgspec.Struct):
    """A collection whose end has not come yet. `children` of a mapping are keys and values in turn."""

    line: int
    is_mapping: bool
    anchor: str | None
    children: list[Node]

    def step(self, path: str) -> str:
        if not self.is_mapping:
            return step(path, len(self.children))
        key = self.children[-1] if len(self.children) % 2 else None
        return step(path, key.text) if isinstance(key, Scalar) else path


class _Composer:
    def __init__(self) -> None:
        self.root: Node | None = None
        self.duplicates: list[Finding] = []
        self._open: list[_Open] = []
        self._anchors: dict[str, Node | None] = {}
        self._documents = 0

    def take(self, event: yaml.Event) -> None:
        line = event.start_mark.line + 1 if event.start_mark else 1
        match event:
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    raise self._broken(line, "a second document begins here: the rules are one document")
            case yaml.AliasEvent():
                self._add(self._alias(event.anchor, line))
            case yaml.ScalarEvent():
                self._refuse_tag(event.tag, line)
                node = Scalar(line, event.value, plain=not event.style)
                self._anchor(event.anchor, node)
                self._add(node)
            case yaml.CollectionStartEvent():
                self._refuse_tag(event.tag, line)
                self._begin(_Open(line, isinstance(event, yaml.MappingStartEvent), event.anchor, []))
            case yaml.CollectionEndEvent():
                self._end()

    def _begin(self, collection: _Open) -> None:
        if len(self._open) == _DEEPEST:
            raise DocumentError(Finding(collection.line, f"nested more than {_DEEPEST} deep"))
        self._anchor(collection.anchor, None)
        self._open.append(collection)

    def _end(self) -> None:
        done = self._open[-1]
        size = 1 + sum(child.size for child in done.children)
        if size > _LARGEST:
            raise self._broken(done.line, "too large once its aliases are followed")
        node = (
            self._mapping(done, size) if done.is_mapping else Sequence(done.line, tuple(done.children), size)
        )
        self._open.pop()
        self._anchor(done.anchor, node)
        self._add(node)

    def _add(self, node: Node) -> None:
        if self._open:
            self._open[-1].children.append(node)
        else:
            self.root = node

    def _anchor(self, name: str | None, node: Node | None) -> None:
        if name is not None:
            self._anchors[name] = node

    def _alias(self, name: str | None, line: int) -> Node:
        if name is None or name not in self._anchors:
            raise self._broken(line, f"no anchor &{name} stands before this alias (put globs in quotes)")
        node = self._anchors[name]
        if node is None:
            raise self._broken(line, f"the alias *{name} stands inside what it names")
        return node

    def _mapping(self, done: _Open, size: int) -> Mapping:
        items: dict[str, Node] = {}
        lines: dict[str, int] = {}
        merged: list[Mapping] = []
        for key, value in zip(done.children[::2], done.children[1::2], strict=True):
            if not isinstance(key, Scalar):
                raise self._broken(key.line, "a key must be text")
            if key.plain and key.text == "<<":
                merged.extend(self._merged(value))
            elif key.text in items:
                message = f"duplicate key {quoted(key.text)}, first on line {lines[key.text]}"
                self.duplicates.append(Finding(key.line, message, self._path(self._open[:-1])))
            else:
                items[key.text], lines[key.text] = value, key.line
        for source in merged:
            for name, value in source.items.items():
                if name not in items:
                    items[name], lines[name] = value, source.lines[name]
        return Mapping(done.line, items, lines, size)

    def _merged(self, value: Node) -> Iterator[Mapping]:
        for node in value.items if isinstance(value, Sequence) else (value,):
            if not isinstance(node, Mapping):
                raise self._broken(node.line, "<< takes keys and values, or a list of such")
            yield node

    def _refuse_tag(self, tag: str | None, line: int) -> None:
        if tag is not None:
            raise self._broken(
                line, f"the tag {quoted(tag)} means nothing here (quote text that begins with !)"
            )

    def _broken(self, line: int, message: str) -> DocumentError:
        return DocumentError(Finding(line, message, self._path(self._open)))

    def _path(self, collections: list[_Open]) -> str:
        path = "$"
        for collection in collections:
            path = collection.step(path)
        return path
