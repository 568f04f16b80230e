"""Keys that are accepted and whose effect is not there yet. The table is the one place that says which."""

from collections.abc import Callable

import msgspec

from .document import Mapping, Node, Scalar
from .faults import Fault


def _anything(_node: Node) -> bool:
    return True


def _is_not(text: str) -> Callable[[Node], bool]:
    return lambda node: isinstance(node, Scalar) and node.text != text


class Pending(msgspec.Struct, frozen=True):
    path: str
    what: str
    where: Callable[[Node], bool] = _anything
    """Whether what is written there asks for the effect."""


PENDING = (
    Pending("ledger", "ledger: URL", _is_not("sqlite")),
    Pending("ledger.url", "ledger: URL", _is_not("sqlite")),
    Pending("listen", "listen"),
    Pending("inspect.keep", "inspect.keep"),
    Pending("inspect.bodies", "inspect.bodies"),
)


def not_yet(root: Mapping, file: str) -> list[str]:
    """`rules.yaml:LINE: KEY is not yet in effect (at $.path)` for each such key in the document."""
    found = []
    for pending in PENDING:
        *above, key = pending.path.split(".")
        node: Node | None = root
        for name in above:
            node = node.get(name) if isinstance(node, Mapping) else None
        if isinstance(node, Mapping) and (value := node.get(key)) is not None and pending.where(value):
            fault = Fault(node.lines[key], f"{pending.what} is not yet in effect", f"$.{pending.path}")
            found.append(fault)
    return [fault.within(file) for fault in sorted(found)]
