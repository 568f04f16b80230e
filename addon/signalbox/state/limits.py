"""What routers on many machines tell each other of quota windows, cooldowns and open circuits."""

from collections.abc import Sequence
from typing import NamedTuple

from signalbox.routing.health import BlockScope
from signalbox.routing.quota import SharedWindow


class BlockRow(NamedTuple):
    """An open circuit or a cooldown. `remaining` is in seconds; 0 if it has ended."""

    kind: str
    """`messages` or `count_tokens`, whose health is separate."""
    provider: str
    scope: BlockScope
    name: str
    remaining: float
    reason: str
    cause: str
    at: float = 0.0
    """When it was written, by the database's clock."""


class Limits(NamedTuple):
    windows: Sequence[SharedWindow] = ()
    blocks: Sequence[BlockRow] = ()
