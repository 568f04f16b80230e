"""Whether a provider that keeps failing may be asked: the circuit breaker, and the gate it shuts.

No clock here: `now` is seconds of any clock that never goes back.
"""

from typing import Literal

import msgspec

from signalbox.config.rules import Circuit

type State = Literal["closed", "degraded", "open", "half-open"]

TRIAL_FORGOTTEN = 60.0
"""Seconds after which a trial that has not ended no longer keeps others out."""


class Gate:
    """Shut until a moment, from then on passed by one trial at a time."""

    def __init__(self, until: float) -> None:
        self.until = until
        self._trial: object = None
        self._trial_began = 0.0

    def remaining(self, now: float) -> float:
        """Seconds until the first trial."""
        return max(0.0, self.until - now)

    def allows(self, now: float) -> bool:
        is_free = self._trial is None or now - self._trial_began >= TRIAL_FORGOTTEN
        return is_free and not self.remaining(now)

    def enter(self, trial: object, now: float) -> None:
        """Make this the trial, where one is allowed. What goes in all the same takes nobody's place."""
        if self.allows(now):
            self._trial, self._trial_began = trial, now

    def leave(self, trial: object) -> None:
        if self._trial is trial:
            self._trial = None


class Ticket(msgspec.Struct, frozen=True, eq=False):
    """One attempt as the breaker sees it: how often the circuit had opened when it began."""

    openings: int
    is_trial: bool


class Breaker:
    """The circuit of one provider: closed, degraded (closed still), open, half-open.

    `circuit` may be replaced at any time; what has happened stays.

    An attempt judges only the time in which it began. One that began before the circuit last opened, and
    fails late, is not counted: many hung requests that end long after the first of them would otherwise
    open it again, or keep it open. If it succeeds late, it does not close an open circuit, for it says
    nothing of new requests. A request sent to an open circuit for want of another target closes it by
    success and cannot prolong it by failure.
    """

    def __init__(self, circuit: Circuit) -> None:
        self.circuit = circuit
        self._failures = 0
        self._openings = 0
        self._gate: Gate | None = None
        """None while closed."""

    def state(self, now: float) -> State:
        if self._gate is not None:
            return "open" if self._gate.remaining(now) else "half-open"
        return "degraded" if self._failures >= self.circuit.degraded_after else "closed"

    def remaining(self, now: float) -> float:
        """Seconds for which it stays open; 0 where it is not."""
        return self._gate.remaining(now) if self._gate is not None else 0.0

    def allows(self, now: float) -> bool:
        return self._gate is None or self._gate.allows(now)

    def begin(self, now: float) -> Ticket:
        """An attempt is sent, allowed or not. Ends by exactly one of the three below."""
        ticket = Ticket(self._openings, is_trial=self._gate is not None and self._gate.allows(now))
        if self._gate is not None:
            self._gate.enter(ticket, now)
        return ticket

    def succeeded(self, ticket: Ticket) -> None:
        if self._gate is None or ticket.openings == self._openings:
            self._gate = None
            self._failures = 0

    def failed(self, ticket: Ticket, now: float) -> None:
        if ticket.openings != self._openings:
            return
        if self._gate is None:
            self._failures += 1
            opens = self._failures >= self.circuit.open_after
        else:
            opens = ticket.is_trial
        if opens:
            self._gate = Gate(now + self.circuit.cooldown)
            self._openings += 1

    def abandoned(self, ticket: Ticket) -> None:
        """It ended without telling anything about the provider: the client left, or asked for nonsense."""
        if self._gate is not None:
            self._gate.leave(ticket)
