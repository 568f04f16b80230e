"""What the pages below `/ui` show of the router itself, and where they are."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from signalbox.config.rules import Rules

if TYPE_CHECKING:
    from signalbox.inspect.recorded import HeldTurn

ROOT = "/ui"


class State(NamedTuple):
    """The router at the moment of a request, as the event loop knows it."""

    rules: Rules
    health: Mapping[str, Any]
    """What `/health` shows."""
    in_flight: int
    budgets: Mapping[str, Mapping[str, Any]]
    """By provider with a budget: `used` and `tokens`, `percent`, `at`, `per`, `resets_at`."""
    now: datetime
    flows: Mapping[tuple[str, int], str] = {}
    """By id and moment of a request, as the ledger has both, the address of its flow in mitmweb."""
    held: Sequence["HeldTurn"] = ()
    """What is held of the conversation of the session that is asked for, and may be shown."""


def session_of(path: str) -> str | None:
    """The session whose page this is."""
    start, _, name = path.rpartition("/")
    return unquote(name) if start == f"{ROOT}/sessions" and name else None
