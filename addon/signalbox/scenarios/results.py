"""What came of a scenario."""

import msgspec


class Seen(msgspec.Struct):
    """What a client got of one request. Times are seconds since it was sent."""

    status: int = 0
    """0 without an answer."""
    headers: dict[str, str] = {}
    text: str = ""
    error: str = ""
    """Type and message of an error, or why there is no (whole) answer; empty if there is one."""
    is_cut: bool = False
    """Whether a stream broke off."""
    head_after: float | None = None
    text_after: float | None = None
    """When the first words came."""
    ended_after: float = 0.0
    pings: int = 0
    """Signs of life before the answer ended."""


class Tried(msgspec.Struct):
    """One attempt. `after` and `took` are seconds."""

    provider: str
    model: str | None
    outcome: str
    """As in `x-signalbox-attempts`."""
    detail: str
    after: float
    took: float


class Passed(msgspec.Struct):
    """A target that was skipped."""

    provider: str
    model: str | None
    reason: str
    detail: str


class Played(msgspec.Struct):
    """One request of a scenario."""

    scenario: str
    about: str
    model: str
    """Asked for."""
    rule: str
    is_well: bool = msgspec.field(name="ok")
    """Whether the client got what the scenario wants, which mostly is an answer."""
    answered_by: str | None
    """`provider/model`."""
    attempts: list[Tried]
    skipped: list[Passed]
    seen: Seen
    repeats: int
    """How often the client asked again, since a stream broke off."""
