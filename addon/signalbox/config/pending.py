"""Keys that are accepted and whose effect is not there yet. The table is the one place that says which."""

from collections.abc import Callable, Iterator

import msgspec

from .document import Mapping, Node, Scalar, Sequence
from .faults import Fault, step


def _anything(_node: Node) -> bool:
    return True


def _is_not(text: str) -> Callable[[Node], bool]:
    return lambda node: isinstance(node, Scalar) and node.text != text


class Pending(msgspec.Struct, frozen=True):
    path: str
    """`*` is any name or place in a list."""
    what: str
    where: Callable[[Node], bool] = _anything
    """Whether what is written there asks for the effect."""


PENDING = (
    Pending("ledger", "ledger: URL", _is_not("sqlite")),
    Pending("ledger.url", "ledger: URL", _is_not("sqlite")),
    Pending("ui", "ui"),
    Pending("listen", "listen"),
    Pending("inspect.keep", "inspect.keep"),
    Pending("inspect.bodies", "inspect.bodies"),
)


def not_yet(root: Mapping, file: str) -> list[str]:
    """`rules.yaml:LINE: KEY is not yet in effect (at $.path)` for each such key in the document."""
    found = []
    for pending in PENDING:
        for node, line, path in _find(root, pending.path.split("."), root.line, "$"):
            if pending.where(node):
                found.append(Fault(line, f"{pending.what} is not yet in effect", path))
    return [fault.within(file) for fault in sorted(found)]


def _find(node: Node, steps: list[str], line: int, path: str) -> Iterator[tuple[Node, int, str]]:
    """Each given node at the end of the steps, the line of its key, and its path."""
    if not steps:
        yield node, line, path
        return
    first, *rest = steps
    if isinstance(node, Mapping):
        for key in node.items if first == "*" else (first,):
            if (value := node.get(key)) is not None:
                yield from _find(value, rest, node.lines[key], step(path, key))
    elif isinstance(node, Sequence) and first == "*":
        for i, item in enumerate(node.items):
            yield from _find(item, rest, item.line, step(path, i))
