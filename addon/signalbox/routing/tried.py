"""One attempt, as it went: what headers, log and record tell of it."""

import msgspec

from signalbox.messages.usage import Usage
from signalbox.routing.outcome import Outcome


class Tried(msgspec.Struct):
    """One try at one target. Times are seconds of a monotonic clock."""

    provider: str
    model: str | None
    """As sent; None where that is not known."""
    key_index: int | None
    """Which of the provider's keys; None where the router put in none."""
    began: float
    answered: float | None = None
    """When the head of its answer came."""
    status: int | None = None
    """That answer's."""
    request_id: str = ""
    """By which the provider knows it; empty where its answer does not tell."""
    label: str = ""
    """As in `x-signalbox-attempts`; empty until something can be told."""
    outcome: Outcome | None = None
    ended: float | None = None
    """When it had failed, or when its answer was over."""
    usage: Usage = msgspec.field(default_factory=Usage)

    @property
    def detail(self) -> str:
        """Why it failed, for people."""
        return self.outcome.detail if self.outcome is not None else ""
