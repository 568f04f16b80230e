"""The attempts of one request: which is made now, and which may follow when it fails.

Decides and keeps count; sending and waiting are the proxy's business. `now` is seconds of a monotonic clock.
"""

from collections.abc import Callable

import msgspec

from signalbox.config.rules import Failover, Provider
from signalbox.routing.facts import Conversation
from signalbox.routing.outcome import Outcome, success
from signalbox.routing.plan import Choice
from signalbox.routing.prepare import Outgoing
from signalbox.routing.standing import Attempt as Ticket
from signalbox.routing.standing import Event, Standing


class Attempt(msgspec.Struct, frozen=True):
    """One try at one target with one key. `outgoing` is all that is sent there."""

    choice: Choice
    outgoing: Outgoing
    ticket: Ticket
    number: int
    """From 1."""

    @property
    def provider(self) -> Provider:
        return self.choice.provider


class Next(msgspec.Struct, frozen=True):
    """What to do after a failure: this attempt, after so many seconds."""

    attempt: Attempt
    wait: float = 0.0


type Prepare = Callable[[Choice, str | None, bool], Outgoing]
"""Makes what a target is sent: with this key, and whether it is the only one that could answer."""


class Course:
    """`start` gives the first attempt, `failed` the one after a failure, `ended` closes the last."""

    def __init__(
        self,
        choices: tuple[Choice, ...],
        failover: Failover,
        standing: Standing,
        prepare: Prepare,
        conversation: Conversation | None,
        tell: Callable[[Event], None],
    ) -> None:
        self._waiting = list(choices)
        self._failover = failover
        self._standing = standing
        self._prepare = prepare
        self._conversation = conversation
        self._tell = tell
        self._retries = failover.retries
        self._patience = failover.wait
        self._keys_left = 0
        self.outcomes: list[tuple[str, str]] = []
        """(provider, label) of every attempt that another one followed."""
        self.current: Attempt | None = None

    def start(self, now: float) -> Attempt:
        """The first attempt, at the first of the choices: the plan has seen to it that it may be asked."""
        first = self._move(now, insist=True)
        assert first is not None
        return first

    def may_follow(self, now: float) -> bool:
        """Whether another attempt could still take over from the current one."""
        if self.current is None:
            return False
        return (
            self._retries > 0 or self._keys_left > 0 or any(not self._refused(c, now) for c in self._waiting)
        )

    def failed(self, outcome: Outcome, now: float) -> Next | None:
        """The attempt failed before its answer began. None: nobody takes over, what failed is delivered.

        A key that failed gives its place to another of the same provider at once; then come retries and a
        wait of the rule's `failover`, then the next target that is not passed over.
        """
        attempt = self.current
        if attempt is None or not outcome.moves_on(self._failover.on):
            return None
        if not self.may_follow(now) and not self._worth_waiting(outcome):
            return None
        self.outcomes.append((attempt.provider.name, outcome.label))
        self._judge(outcome, now)
        if outcome.scope == "key" and self._keys_left > 0:
            self._keys_left -= 1
            return Next(self._begin(attempt.choice, now))
        if self._worth_waiting(outcome):
            self._patience -= outcome.rest or 0
            return Next(self._begin(attempt.choice, now), outcome.rest or 0)
        if self._retries > 0:
            self._retries -= 1
            return Next(self._begin(attempt.choice, now))
        following = self._move(now)
        return None if following is None else Next(following)

    def began(self, status: int, now: float) -> None:
        """The answer that is delivered has begun; it may still break off."""
        self._judge(success(status), now)

    def ended(self, outcome: Outcome | None, now: float) -> None:
        """What is delivered is over; None where the client left."""
        self._judge(outcome, now)

    def _worth_waiting(self, outcome: Outcome) -> bool:
        return outcome.rest is not None and 0 < outcome.rest <= self._patience

    def _move(self, now: float, *, insist: bool = False) -> Attempt | None:
        """To the next target that is not passed over now; the first is taken as the plan says."""
        while self._waiting:
            choice = self._waiting.pop(0)
            if insist or not self._refused(choice, now):
                keys = sum(secret.value is not None for secret in choice.provider.keys)
                self._keys_left = max(keys - 1, 0)
                self._retries = self._failover.retries
                return self._begin(choice, now)
        return None

    def _begin(self, choice: Choice, now: float) -> Attempt:
        provider = choice.provider
        index = self._standing.pick_key(provider, self._conversation, now)
        key = provider.keys[index].value if index is not None else provider.key
        ticket = self._standing.begin(provider, choice.model, index, now)
        lone = not (self._waiting or self._retries or self._keys_left)
        self.current = Attempt(choice, self._prepare(choice, key, lone), ticket, len(self.outcomes) + 1)
        return self.current

    def _refused(self, choice: Choice, now: float) -> bool:
        return self._standing.refusal(choice.provider, choice.model, now) is not None

    def _judge(self, outcome: Outcome | None, now: float) -> None:
        if self.current is not None:
            for event in self._standing.end(self.current.ticket, outcome, now):
                self._tell(event)
