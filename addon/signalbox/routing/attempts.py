"""Decides which attempt a request begins with, and which follows when one fails.

The caller prepares, waits and sends. `now` is seconds of a monotonic clock.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from msgspec.structs import replace

from signalbox.anthropic.api import Usage
from signalbox.config.fields import Command
from signalbox.config.rules import Failover, Provider, Target
from signalbox.config.rules import Reject as Reject
from signalbox.routing.credentials import Caller
from signalbox.routing.facts import ConversationId
from signalbox.routing.health import HealthEvent, HealthToken, ProviderHealth
from signalbox.routing.outcome import Outcome
from signalbox.routing.outgoing import Outgoing
from signalbox.routing.plan import Candidate

SHORTEST_WAIT = 1.0
"""Seconds of `failover.wait` that each wait uses up at least, so that `retry-after: 0` cannot repeat for
ever."""


@dataclass(eq=False, repr=False)  # `outgoing` holds credentials: no repr
class Attempt:
    """One request to one candidate with one key, from the decision to the ledger.

    Times are seconds of a monotonic clock.
    """

    candidate: Candidate
    key_index: int | None = None
    """The index of the provider's key; None if the router adds no key."""
    delay: float = 0.0
    """Seconds to wait before it is sent."""
    is_only_candidate: bool = False
    """Whether no other attempt could ever follow."""
    outgoing: Outgoing | None = None
    """The prepared request; None before that, and if the request is passed on unchanged."""
    health_token: HealthToken | None = None
    """None before it is sent and after it is settled."""
    started: float = 0.0
    head_at: float | None = None
    """When the head of its answer came."""
    status: int | None = None
    """The status of its answer."""
    request_id: str = ""
    """The provider's id for it; empty if its answer has none."""
    label: str = ""
    """As in `x-signalbox-attempts`; empty until something is known."""
    outcome: Outcome | None = None
    ended: float | None = None
    """When it failed, or when its answer ended."""
    usage: Usage = field(default_factory=Usage)
    cache_miss_reason: str = ""
    """The provider's reason why it read less from its cache."""

    @classmethod
    def passed_on(cls, provider: Provider, model: str | None, now: float) -> "Attempt":
        """The only attempt of a request that no rule matches."""
        return cls(Candidate(provider, Target(provider.name), model), started=now)

    @property
    def provider(self) -> Provider:
        return self.candidate.provider

    @property
    def model(self) -> str | None:
        """The model as sent; None if unknown."""
        return self.outgoing.model if self.outgoing is not None else self.candidate.model

    @property
    def key(self) -> str | None:
        return self.provider.keys[self.key_index].value if self.key_index is not None else None

    @property
    def detail(self) -> str:
        """Why it failed, for people."""
        return self.outcome.detail if self.outcome is not None else ""


class AccountLimits(Protocol):
    """The quota, budget and login of accounts; `quota_tracker.QuotaTracker`."""

    def refusal(self, provider: Provider, model: str | None, caller: Caller) -> tuple[str, str] | None: ...


@dataclass(frozen=True)
class Availability:
    """Whether a candidate can be asked now for one caller: by its health, and by its account's limits."""

    health: ProviderHealth
    limits: AccountLimits
    caller: Caller

    def refusal(self, candidate: Candidate, now: float) -> tuple[str, str] | None:
        """As in `plan.RefusalCheck`."""
        limited = self.limit(candidate)
        return limited or self.health.refusal(candidate.provider, candidate.model, now)

    def limit(self, candidate: Candidate) -> tuple[str, str] | None:
        """The same without health: quota, budget or login."""
        return self.limits.refusal(candidate.provider, candidate.model, self.caller)

    def is_last_resort(self, candidate: Candidate, now: float) -> bool:
        """Whether nothing but an open circuit or a short cooldown blocks this candidate."""
        healthy_enough = self.health.is_last_resort(candidate.provider, candidate.model, now)
        return healthy_enough and self.limit(candidate) is None


class AttemptSequence:
    """Decides which attempt comes next: `first`, `after` a failure, or `instead` of one that cannot be
    prepared.

    The caller calls `start` with each attempt that it sends, and `settle` when the attempt ends.
    """

    def __init__(
        self,
        candidates: tuple[Candidate, ...],
        failover: Failover,
        availability: Availability,
        conversation: ConversationId | None,
        *,
        chain: tuple[Candidate, ...] = (),
        reject: Reject | None = None,
        one_key: bool = False,
    ) -> None:
        """`candidates` are the available ones of the plan, at least one. After all of them have failed, the
        last resorts of the `chain` are asked, then `reject` answers. `one_key`: no other key of the same
        provider is used either."""
        self._waiting = list(candidates)
        self._chain = chain or candidates
        self._asked: list[Candidate] = []
        self._failover = failover
        self._availability = availability
        self._conversation = conversation
        self._reject = reject
        self._one_key = one_key
        self._retries = 0
        self._wait = 0.0
        """Seconds of `failover.wait` that the current candidate has left."""
        self._used_keys: frozenset[int | None] = frozenset()
        """The keys of the current candidate that were used."""
        self.is_renewed = False
        """Whether the current candidate was asked again with a newer key or login."""
        self.current: Attempt | None = None
        """The last attempt that was sent; None before the first, and once nothing follows."""

    # which attempt

    def first(self, now: float) -> Attempt:
        """The attempt at the first candidate."""
        return self._turn_to(self._waiting.pop(0), now)

    def after(self, failure: Outcome, now: float) -> Attempt | Reject | None:
        """What follows the current attempt, which failed before its answer began. None: the client gets the
        failed answer.

        First another key of the same provider, whatever the rule's failover says; then a wait, retries, the
        next available candidate, the last resorts, and the reject.
        """
        attempt = self.current
        if attempt is None:
            return None
        candidate, index = attempt.candidate, attempt.key_index
        if failure.scope == "key" and (key := self._other_key(candidate.provider, now)) is not None:
            return self._attempt(candidate, key, now)
        if not failure.moves_on(self._failover.on):
            self.current = None
            return None
        if failure.wait and failure.wait <= self._wait:
            self._wait -= max(failure.wait, SHORTEST_WAIT)
            return self._attempt(candidate, index, now, delay=failure.wait)
        if self._retries > 0:
            self._retries -= 1
            return self._attempt(candidate, index, now)
        return self.instead(now)

    def instead(self, now: float) -> Attempt | Reject | None:
        """An attempt at the next candidate that may be asked."""
        while self._waiting:
            candidate = self._waiting.pop(0)
            if self._availability.refusal(candidate, now) is None:
                return self._turn_to(candidate, now)
        if last_resorts := self._last_resorts(now):
            return self._turn_to(last_resorts[0], now, is_last_resort=True)
        self.current = None
        return self._reject

    def repeat(self, now: float) -> Attempt | None:
        """The current candidate and key again, after the request was repaired."""
        attempt = self.current
        return attempt and self._attempt(attempt.candidate, attempt.key_index, now)

    def repeat_renewed(self, provider: Provider | None, now: float) -> Attempt | None:
        """The current candidate again, after its key's command has run again or its login was read again.
        `provider` is the one with this name in the rules now in force. If its URL has changed, the old keys
        stay: another host must not get this request."""
        attempt = self.current
        if attempt is None:
            return None
        self.is_renewed = True
        candidate, old = attempt.candidate, attempt.provider
        if (
            provider is not None
            and provider.url == old.url
            and [key.command for key in provider.keys] == [key.command for key in old.keys]
        ):
            candidate = replace(candidate, provider=replace(old, keys=provider.keys))
        return self._attempt(candidate, attempt.key_index, now)

    @property
    def key_command(self) -> Command | None:
        """The command that printed the current attempt's key; None if it has run again for this candidate."""
        attempt = self.current
        if attempt is None or attempt.key_index is None or self.is_renewed:
            return None
        return attempt.provider.keys[attempt.key_index].command

    def could_follow(self, now: float) -> bool:
        """Whether another attempt, or the reject, could follow the current attempt."""
        if self.current is None:
            return False
        return (
            self._reject is not None
            or self._retries > 0
            or self._wait > 0
            or self._other_key(self.current.provider, now) is not None
            or any(self._availability.refusal(candidate, now) is None for candidate in self._waiting)
            or bool(self._last_resorts(now))
        )

    def not_asked(self, now: float) -> list[tuple[str, str]]:
        """The provider of each candidate of the chain that was not asked, and the reason for people."""
        return [
            (one.provider.name, ", ".join(self._availability.refusal(one, now) or ("not asked",)))
            for one in self._not_asked()
        ]

    # how it ends

    def start(self, attempt: Attempt, now: float) -> None:
        """The attempt is sent now."""
        attempt.started = now
        attempt.health_token = self._availability.health.begin(
            attempt.provider, attempt.candidate.model, attempt.key_index, now
        )
        self.current = attempt

    def answer_began(self) -> list[HealthEvent]:
        """The answer that is delivered has begun. It may still break off."""
        token = self.current.health_token if self.current is not None else None
        return self._availability.health.answer_began(token) if token is not None else []

    def settle(self, outcome: Outcome | None, now: float) -> list[HealthEvent]:
        """The current attempt has failed, or its answer was delivered. `outcome` is None if it says nothing
        about the provider. Each attempt counts once: later calls are ignored."""
        attempt = self.current
        if attempt is None or attempt.health_token is None:
            return []
        token, attempt.health_token = attempt.health_token, None
        return self._availability.health.end(token, outcome, now)

    # parts

    def _turn_to(self, candidate: Candidate, now: float, *, is_last_resort: bool = False) -> Attempt:
        """The first attempt at a candidate. A last resort has no retries and no wait."""
        self._retries = 0 if is_last_resort else self._failover.retries
        self._wait = 0.0 if is_last_resort else self._failover.wait
        self._used_keys = frozenset()
        self.is_renewed = False
        self._asked.append(candidate)
        key = self._availability.health.pick_key(candidate.provider, self._conversation, now)
        return self._attempt(candidate, key, now)

    def _attempt(self, candidate: Candidate, index: int | None, now: float, *, delay: float = 0.0) -> Attempt:
        """`index` None: the key that recovers first, if there is one."""
        if index is None:
            index = self._availability.health.next_key(candidate.provider, now)
        self._used_keys |= {index}
        is_only = self._is_only_candidate(candidate.provider)
        return Attempt(candidate, index, delay, is_only)

    def _is_only_candidate(self, provider: Provider) -> bool:
        """Whether no other attempt could follow, whatever the health of the other candidates will be."""
        keys = 1 if self._one_key else sum(secret.value is not None for secret in provider.keys)
        others = self._waiting or any(self._not_asked())
        return not (others or self._reject or self._retries or self._wait or keys > 1)

    def _other_key(self, provider: Provider, now: float) -> int | None:
        """A key that is not in cooldown and was not used yet."""
        if self._one_key:
            return None
        health = self._availability.health
        return health.pick_key(provider, self._conversation, now, without=self._used_keys)

    def _last_resorts(self, now: float) -> list[Candidate]:
        """Skipped candidates that are asked once, in order, before the client gets an error: those with an
        open circuit, and those that recover soon."""
        return [one for one in self._not_asked() if self._availability.is_last_resort(one, now)]

    def _not_asked(self) -> Iterator[Candidate]:
        return (one for one in self._chain if not any(one is asked for asked in self._asked))
