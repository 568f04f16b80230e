"""The attempts of one request: which is made now, and which may follow when it fails.

Decides and keeps count; sending and waiting are the proxy's business, and so is where the slow parts of a
decision run (`Work`). `now` is seconds of a monotonic clock.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress

import msgspec
from msgspec.structs import replace

from signalbox.config.fields import Command
from signalbox.config.rules import Failover, Provider
from signalbox.config.rules import Reject as Reject
from signalbox.routing.facts import Conversation
from signalbox.routing.health import HealthEvent, HealthToken, ProviderHealth
from signalbox.routing.outcome import CANCELLED, Outcome
from signalbox.routing.outgoing import Outgoing
from signalbox.routing.plan import Candidate
from signalbox.routing.work import Work
from signalbox.translate.translation import UntranslatableError

SHORTEST_WAIT = 1.0
"""Seconds that a wait uses up of `failover.wait` at least: a `retry-after` of nothing is no loop."""


class Attempt(msgspec.Struct, frozen=True):
    """One try at one target with one key. `outgoing` is all that is sent there."""

    candidate: Candidate
    outgoing: Outgoing
    ticket: HealthToken

    @property
    def provider(self) -> Provider:
        return self.candidate.provider


class Next(msgspec.Struct, frozen=True):
    """What to do after a failure: this attempt, after so many seconds."""

    attempt: Attempt
    wait: float = 0.0


type Against = Callable[[Candidate], tuple[str, str] | None]
"""Says what there is against a target now beside circuits and cooldowns, such as quota that is used up, as in
`plan.Refusal`."""

type Prepare = Callable[[Candidate, str | None, bool], Work[Outgoing]]
"""Makes what a target is sent: with this key, and whether it is the only one that could answer."""


type Mend = Callable[[Attempt, int, bytes], Work[bool]]
"""Told the status and body of a refusal; says whether the same target would now be sent something else."""


class Course:
    """`start` gives the first attempt, `failed` the one after a failure, `ended` closes the last.

    Each attempt is judged once: when it fails, or when its answer is over.
    """

    def __init__(
        self,
        candidates: tuple[Candidate, ...],
        failover: Failover,
        health: ProviderHealth,
        prepare: Prepare,
        conversation: Conversation | None,
        tell: Callable[[HealthEvent], None],
        reject: Reject | None = None,
        mend: Mend | None = None,
        against: Against = lambda _: None,
        chain: tuple[Candidate, ...] = (),
        *,
        one_key: bool = False,
    ) -> None:
        """`candidates` are those that the plan found available, one at least. When all of them have failed,
        those of the `chain` that were passed over are asked, as far as they are last resorts, and then
        `reject` answers. `one_key`: no other key takes over either."""
        self._waiting = list(candidates)
        self._chain = chain or candidates
        self._asked: list[Candidate] = []
        self._failover = failover
        self._health = health
        self._prepare = prepare
        self._conversation = conversation
        self._tell = tell
        self._reject = reject
        self._mend = mend
        self._against = against
        self._one_key = one_key
        self._retries = 0
        self._patience = 0.0
        self._tried: frozenset[int | None] = frozenset()
        """Keys of the current target that were used."""
        self._is_renewed = False
        """Whether the key of the current target was printed anew for this request."""
        self._verdict: Outcome | None = None
        """How the current attempt was judged, if it was."""
        self.current: Attempt | None = None
        """None before the first, and where the router answers itself after the last."""

    def start(self, now: float) -> Work[Attempt]:
        """The first attempt: the plan has seen to it that any of the candidates may be asked. Raises
        UntranslatableError where none of them can be sent the request."""
        while True:
            try:
                return (yield from self._turn_to(self._waiting.pop(0), now))
            except UntranslatableError:
                if not self._waiting:
                    self._waiting = self._last_resorts(now)
                if not self._waiting:
                    raise

    def may_follow(self, now: float) -> bool:
        """Whether anything could still take over from the current attempt."""
        if self.current is None:
            return False
        return (
            self._reject is not None
            or self._retries > 0
            or self._patience > 0
            or self._other_key(self.current.provider, now) is not None
            or any(self._refusal(candidate, now) is None for candidate in self._waiting)
            or bool(self._last_resorts(now))
        )

    def mended(self, status: int, body: bytes, now: float) -> Work[Next | None]:
        """The target refused something that the request can do without: it is asked once more, without."""
        attempt = self.current
        if attempt is None or self._mend is None or not (yield from self._mend(attempt, status, body)):
            return None
        self._judge(None, now)
        return Next((yield from self._begin(attempt.candidate, attempt.ticket.key_index, now)))

    @property
    def key_command(self) -> Command | None:
        """What printed the current attempt's key, unless it was run again for this target already."""
        attempt = self.current
        if attempt is None or attempt.ticket.key_index is None or self._is_renewed:
            return None
        return attempt.provider.keys[attempt.ticket.key_index].command

    def renewed(self, provider: Provider | None, now: float) -> Work[Next | None]:
        """The key's command was run again after a refusal: the same target is asked once more. `provider` is
        what the rules in force have under this name now; another place gets nothing of this request."""
        attempt = self.current
        if attempt is None or self._verdict is not None:
            return None
        self._is_renewed = True
        candidate, index = attempt.candidate, attempt.ticket.key_index
        if (
            provider is not None
            and provider.url == candidate.provider.url
            and [key.command for key in provider.keys] == [key.command for key in candidate.provider.keys]
        ):
            candidate = replace(candidate, provider=replace(candidate.provider, keys=provider.keys))
        self._judge(None, now)
        return Next((yield from self._begin(candidate, index, now)))

    def failed(self, outcome: Outcome, now: float) -> Work[Next | Reject | None]:
        """The attempt failed before its answer began. None: nobody takes over, what failed is delivered."""
        attempt = self.current
        if attempt is None or self._verdict is not None:
            return None
        self._judge(outcome, now)
        following = yield from self._following(attempt, outcome, now)
        if isinstance(following, Reject):
            self.current = None
        return following

    def began(self) -> None:
        """The answer that is delivered has begun; it may still break off."""
        if self.current is not None and self._verdict is None:
            for event in self._health.answer_began(self.current.ticket):
                self._tell(event)

    def ended(self, outcome: Outcome | None, now: float) -> None:
        """What is delivered is over; None where the client left."""
        if self._verdict is None:
            self._judge(outcome, now)

    def _following(self, attempt: Attempt, outcome: Outcome, now: float) -> Work[Next | Reject | None]:
        """A key that failed gives its place to another of the same provider at once, whatever the rule says
        of failover; then come a wait and retries, then the next target that is not passed over."""
        candidate, index = attempt.candidate, attempt.ticket.key_index
        if outcome.scope == "key" and (key := self._other_key(candidate.provider, now)) is not None:
            return Next((yield from self._begin(candidate, key, now)))
        if not outcome.moves_on(self._failover.on):
            return None
        if outcome.wait and outcome.wait <= self._patience:
            self._patience -= max(outcome.wait, SHORTEST_WAIT)
            return Next((yield from self._begin(candidate, index, now + outcome.wait)), outcome.wait)
        if self._retries > 0:
            self._retries -= 1
            return Next((yield from self._begin(candidate, index, now)))
        while self._waiting:
            candidate = self._waiting.pop(0)
            if self._refusal(candidate, now) is None:
                with suppress(UntranslatableError):
                    return Next((yield from self._turn_to(candidate, now)))
        for candidate in self._last_resorts(now):
            with suppress(UntranslatableError):
                return Next((yield from self._turn_to(candidate, now, retries=0, patience=0.0)))
        return self._reject

    def _last_resorts(self, now: float) -> list[Candidate]:
        """Who was passed over and is asked once, in order, before the client gets an error: those with an
        open circuit, and those that recover soon."""
        return [
            candidate
            for candidate in self._not_asked()
            if not any(candidate is one for one in self._waiting)
            and self._against(candidate) is None
            and self._health.is_last_resort(candidate.provider, candidate.model, now)
        ]

    def _not_asked(self) -> Iterator[Candidate]:
        return (candidate for candidate in self._chain if not any(candidate is one for one in self._asked))

    def not_asked(self, now: float) -> list[tuple[str, str]]:
        """Provider, and for people why it is not asked, of each target of the chain that has not been."""
        return [
            (candidate.provider.name, ", ".join(self._refusal(candidate, now) or ("not asked",)))
            for candidate in self._not_asked()
        ]

    def _turn_to(
        self, candidate: Candidate, now: float, *, retries: int | None = None, patience: float | None = None
    ) -> Work[Attempt]:
        """Retries and patience are those of the rule unless given."""
        self._retries = self._failover.retries if retries is None else retries
        self._patience = self._failover.wait if patience is None else patience
        self._tried = frozenset()
        self._is_renewed = False
        self._asked.append(candidate)
        key = self._health.pick_key(candidate.provider, self._conversation, now)
        return (yield from self._begin(candidate, key, now))

    def _begin(self, candidate: Candidate, index: int | None, now: float) -> Work[Attempt]:
        """`index` None: with the key that is first to be well again, if there is one."""
        keys = candidate.provider.keys
        if index is None:
            index = self._health.next_key(candidate.provider, now)
        key = keys[index].value if index is not None else None
        self._tried |= {index}
        outgoing = yield from self._prepare(candidate, key, self._is_lone(candidate.provider))
        self._verdict = None
        ticket = self._health.begin(candidate.provider, candidate.model, index, now)
        self.current = Attempt(candidate, outgoing, ticket)
        return self.current

    def _is_lone(self, provider: Provider) -> bool:
        """Whether nothing could ever take over, however others stand by then."""
        keys = 1 if self._one_key else sum(secret.value is not None for secret in provider.keys)
        others = self._waiting or any(self._not_asked())
        return not (others or self._reject or self._retries or self._patience or keys > 1)

    def _other_key(self, provider: Provider, now: float) -> int | None:
        """A key that is well and was not used yet."""
        if self._one_key:
            return None
        return self._health.pick_key(provider, self._conversation, now, without=self._tried)

    def _refusal(self, candidate: Candidate, now: float) -> tuple[str, str] | None:
        return self._health.refusal(candidate.provider, candidate.model, now) or self._against(candidate)

    def _judge(self, outcome: Outcome | None, now: float) -> None:
        if self.current is None:
            return
        self._verdict = outcome or CANCELLED
        for event in self._health.end(self.current.ticket, outcome, now):
            self._tell(event)
