"""Health of providers, their models and their keys: circuit breakers and cooldowns.

No clock here: `now` is seconds of any clock that never goes back.
"""

from collections.abc import Mapping
from math import ceil, inf
from typing import Literal, NamedTuple

import msgspec

from signalbox.config.rules import Circuit, Provider
from signalbox.routing.facts import ConversationId, rendezvous
from signalbox.routing.outcome import Outcome

PROBE_FORGOTTEN = 60.0
"""Seconds after which a probe that has not ended no longer blocks other attempts."""
BRIEF = 60.0
"""Seconds of the longest remaining cooldown with which a target is still asked when all others have failed
(the contract, section 4)."""
MODELS_LIMIT = 1000
"""Models in cooldown that are remembered. Bounded, since callers choose the names."""

type CircuitState = Literal["closed", "degraded", "open", "half-open"]

type BlockScope = Literal["circuit", "provider", "model", "key"]
"""The scope of a `SharedBlock`."""

type HealthEvent = tuple[Literal["circuit", "cooldown", "recovered"], str, str, str]
"""What an attempt changed, in one of three forms, all text for people:

- `("circuit", provider, state before, state after)`
- `("cooldown", provider, part, "for 30 s: rate_limit_error")`, with `provider`, `model glm-4.7` or `key 2` as
  `part`
- `("recovered", provider, part, "")`
"""


class ProbeGate:
    """Closed until a moment; from then on it admits one probe at a time."""

    def __init__(self, until: float) -> None:
        self.until = until
        self._probe: object = None
        self._probe_began = 0.0

    def remaining(self, now: float) -> float:
        """Seconds until the first probe."""
        return max(0.0, self.until - now)

    def allows(self, now: float) -> bool:
        is_free = self._probe is None or now - self._probe_began >= PROBE_FORGOTTEN
        return is_free and not self.remaining(now)

    def enter(self, probe: object, now: float) -> None:
        """Makes this the probe, if one is allowed. A forced attempt does not occupy the probe's place."""
        if self.allows(now):
            self._probe, self._probe_began = probe, now

    def leave(self, probe: object) -> None:
        if self._probe is probe:
            self._probe = None


class BreakerToken(msgspec.Struct, frozen=True, eq=False):
    """One attempt as the breaker sees it. `generation`: how often the circuit had opened when it began."""

    generation: int
    is_probe: bool


class Breaker:
    """The circuit of one provider: closed, degraded (closed still), open, half-open.

    `circuit` may be replaced at any time; the state stays.

    An attempt counts only for the generation in which it began. If it began before the circuit last opened,
    a late failure is not counted: many hung requests that end long after the first would otherwise open the
    circuit again, or keep it open. A late success does not close an open circuit, because it says nothing
    about new requests. A request that is sent to an open circuit, because there is no other target, closes
    the circuit on success and does not prolong it on failure.
    """

    def __init__(self, circuit: Circuit) -> None:
        self.circuit = circuit
        self._failures = 0
        self._generation = 0
        self._gate: ProbeGate | None = None
        """None while closed."""

    def state(self, now: float) -> CircuitState:
        if self._gate is not None:
            return "open" if self._gate.remaining(now) else "half-open"
        return "degraded" if self._failures >= self.circuit.degraded_after else "closed"

    def remaining(self, now: float) -> float:
        """Seconds for which it stays open; 0 if it is not open."""
        return self._gate.remaining(now) if self._gate is not None else 0.0

    def allows(self, now: float) -> bool:
        return self._gate is None or self._gate.allows(now)

    def begin(self, now: float) -> BreakerToken:
        """An attempt is sent, allowed or not. Exactly one of the three methods below ends it."""
        token = BreakerToken(self._generation, is_probe=self._gate is not None and self._gate.allows(now))
        if self._gate is not None:
            self._gate.enter(token, now)
        return token

    def succeeded(self, token: BreakerToken) -> None:
        if self._gate is None or token.generation == self._generation:
            self._gate = None
            self._failures = 0

    def failed(self, token: BreakerToken, now: float) -> None:
        if token.generation != self._generation:
            return
        if self._gate is None:
            self._failures += 1
            opens = self._failures >= self.circuit.open_after
        else:
            opens = token.is_probe
        if opens:
            self._gate = ProbeGate(now + self.circuit.cooldown)
            self._generation += 1

    def open_until(self, until: float) -> None:
        """Another router's circuit is open until then. The later end wins."""
        if self._gate is None or until > self._gate.until:
            self._gate = ProbeGate(until)
            self._generation += 1

    def close(self) -> None:
        """Another router's circuit has closed."""
        self._gate = None
        self._failures = 0

    @property
    def until(self) -> float:
        """When it admits the first probe; 0 if it is closed."""
        return self._gate.until if self._gate is not None else 0.0

    def abandoned(self, token: BreakerToken) -> None:
        """It ended without a verdict on the provider: the client left, or the request was wrong."""
        if self._gate is not None:
            self._gate.leave(token)


class CooldownKey(NamedTuple):
    """What a cooldown applies to. `name` is the model, or the secret key itself, which never leaves this
    module."""

    provider: str
    scope: Literal["provider", "model", "key"]
    name: str


class Cooldown(ProbeGate):
    """Blocks a provider, model or key for as long as an outcome asks; then admits one probe at a time until
    one succeeds."""

    def __init__(self, key: CooldownKey, what: str) -> None:
        super().__init__(until=-inf)
        self.key = key
        self.what = what
        self.reason = ""
        self.cause = ""
        self.is_of_credential = False
        """Whether the credential was refused, and not what was asked with it."""

    def prolong(self, until: float, outcome: Outcome) -> None:
        window = f":{outcome.window}" if outcome.window is not None else ""
        reason = f"quota{window}" if outcome.kind == "quota" else "cooldown"
        if self.extend(until, reason, outcome.detail or outcome.label):
            self.is_of_credential = outcome.kind == "auth"

    def extend(self, until: float, reason: str, cause: str) -> bool:
        """The longer cooldown wins. Returns whether it is this one."""
        if until <= self.until:
            return False
        self.until, self.reason, self.cause, self.is_of_credential = until, reason, cause, False
        return True

    def refusal(self, now: float) -> tuple[str, str]:
        remaining = self.remaining(now)
        when = f"in cooldown for another {span(remaining)}" if remaining else "being tried again"
        return self.reason, f"{when}: {self.cause}"


class SharedBlock(NamedTuple):
    """An open circuit, or a cooldown of a provider, model or key, as routers share it."""

    provider: str
    scope: BlockScope
    name: str
    """The name of the `CooldownKey`; empty for a circuit."""
    until: float = 0.0
    """When the first probe is admitted; 0 if the block has ended."""
    reason: str = ""
    cause: str = ""

    @property
    def place(self) -> tuple[str, str, str]:
        """What is blocked."""
        return self.provider, self.scope, self.name


class HealthToken(msgspec.Struct, frozen=True, eq=False):
    """Held by an attempt from when it is sent until `ProviderHealth.end`."""

    provider: Provider
    model: str | None
    key_index: int | None
    breaker: Breaker
    breaker_token: BreakerToken
    cooldowns: tuple[Cooldown, ...]
    """The cooldowns that existed when the attempt started, running or over; its success clears them."""


class ProviderHealth:
    """The circuits of all providers and the cooldowns of providers, models and keys."""

    def __init__(self, *, metered: bool = True) -> None:
        """`metered`: `quota.Quotas` reads the same answers and blocks a provider while a window is used
        up."""
        self._metered = metered
        self._breakers: dict[str, Breaker] = {}
        self._cooldowns: dict[CooldownKey, Cooldown] = {}

    def refusal(self, provider: Provider, model: str | None, now: float) -> tuple[str, str] | None:
        """Why this target cannot be asked now, as in `plan.RefusalCheck`: `circuit`, `cooldown`, `quota` or
        `quota:7d`."""
        breaker = self._breakers.get(provider.name)
        if breaker is not None and not breaker.allows(now):
            remaining = breaker.remaining(now)
            detail = f"open for another {span(remaining)}" if remaining else "half-open, being tried again"
            return "circuit", detail
        longest = self._longest(provider, model, now)
        return longest.refusal(now) if longest is not None else None

    def is_last_resort(self, provider: Provider, model: str | None, now: float) -> bool:
        """Whether only an open circuit, or a cooldown that ends within a minute, blocks the target: then it
        is asked when all others have failed."""
        longest = self._longest(provider, model, now)
        return longest is None or longest.remaining(now) <= BRIEF

    def _longest(self, provider: Provider, model: str | None, now: float) -> Cooldown | None:
        """The cooldown that ends last of those that block this target. Keys block it only if all are
        blocked."""
        blocking = [one for key in _target_keys(provider, model) if (one := self._blocking(key, now))]
        keys = [self._blocking(key, now) for key in _secret_keys(provider).values()]
        if all(keys):
            blocking.append(min(filter(None, keys), key=lambda cooldown: cooldown.remaining(now)))
        return max(blocking, key=lambda cooldown: cooldown.remaining(now), default=None)

    def next_key(self, provider: Provider, now: float) -> int | None:
        """The key that recovers first, if all are in cooldown; None if there is no key."""
        ends = {
            index: cooldown.remaining(now) if (cooldown := self._cooldowns.get(key)) else 0.0
            for index, key in _secret_keys(provider).items()
        }
        return min(ends, key=lambda index: ends[index])

    def pick_key(
        self,
        provider: Provider,
        conversation: ConversationId | None,
        now: float,
        *,
        without: frozenset[int | None] = frozenset(),
    ) -> int | None:
        """The index of the key to use, but none of `without`; None if all others are in cooldown.

        Rendezvous hashing: a conversation keeps its key while that is usable, and many conversations are
        spread over the keys. Without a conversation it is the first usable key.
        """
        usable = {
            index: key
            for index, key in _secret_keys(provider).items()
            if index is not None and index not in without and not self._blocking(key, now)
        }
        if conversation is None:
            return next(iter(usable), None)
        return min(usable, key=lambda index: rendezvous(conversation, usable[index].name), default=None)

    def begin(self, provider: Provider, model: str | None, key_index: int | None, now: float) -> HealthToken:
        """An attempt is sent, blocked or not. It is the probe of each cooldown that is over.

        `key_index` None: with the first key, if there is one.
        """
        breaker = self._breakers.setdefault(provider.name, Breaker(provider.circuit))
        breaker.circuit = provider.circuit
        token = breaker.begin(now)
        keys = (*_target_keys(provider, model), _secret_key(provider, key_index)[1])
        cooldowns = tuple(one for key in keys if (one := self._cooldowns.get(key)) is not None)
        for cooldown in cooldowns:
            cooldown.enter(token, now)
        return HealthToken(provider, model, key_index, breaker, token, cooldowns)

    def answer_began(self, attempt: HealthToken) -> list[HealthEvent]:
        """Clears the attempt's cooldowns: the provider accepts this model and key again. The circuit stays as
        it is, since the answer may still break off."""
        return self._recover(attempt)

    def end(self, attempt: HealthToken, outcome: Outcome | None, now: float) -> list[HealthEvent]:
        """Ends an attempt, once: its answer has ended, or it failed. `outcome` None: it was abandoned, as
        when the client leaves, and nothing is learned.

        A later call with None changes nothing.
        """
        events = _judge(attempt, outcome, now)
        for cooldown in attempt.cooldowns:
            cooldown.leave(attempt.breaker_token)
        if outcome is not None:
            succeeded = outcome.kind == "success"
            events += self._recover(attempt) if succeeded else self._cool_down(attempt, outcome, now)
        return events

    def login_renewed(self, provider: Provider) -> bool:
        """Ends the cooldown that began when the provider refused its login of before. Returns whether there
        was one."""
        key = CooldownKey(provider.name, "key", "")
        cooldown = self._cooldowns.get(key)
        if cooldown is None or not cooldown.is_of_credential:
            return False
        del self._cooldowns[key]
        return True

    def circuits(self, now: float) -> dict[str, CircuitState]:
        """The state of each provider that was ever asked; all others are closed."""
        return {name: breaker.state(now) for name, breaker in self._breakers.items()}

    def blocks(self, now: float) -> list[SharedBlock]:
        """Returns the circuits that are open and the cooldowns that are running."""
        circuits = [
            SharedBlock(name, "circuit", "", breaker.until)
            for name, breaker in self._breakers.items()
            if breaker.remaining(now)
        ]
        return circuits + [
            SharedBlock(*cooldown.key, cooldown.until, cooldown.reason, cooldown.cause)
            for cooldown in self._cooldowns.values()
            if cooldown.remaining(now)
        ]

    def merge(self, block: SharedBlock, provider: Provider, now: float) -> list[HealthEvent]:
        """Takes over a block of another router, or its end if `until` is past."""
        if block.scope == "circuit":
            breaker = self._breakers.setdefault(provider.name, Breaker(provider.circuit))
            before = breaker.state(now)
            if block.until > now:
                breaker.open_until(block.until)
            else:
                breaker.close()
            after = breaker.state(now)
            return [("circuit", provider.name, before, after)] if before != after else []
        key = CooldownKey(block.provider, block.scope, block.name)
        cooldown = self._cooldowns.pop(key, None)
        if block.until <= now:
            return [("recovered", provider.name, cooldown.what, "")] if cooldown is not None else []
        was_running = cooldown is not None and bool(cooldown.remaining(now))
        cooldown = self._cooldowns[key] = cooldown or Cooldown(key, _what(key, provider))
        cooldown.extend(block.until, block.reason, block.cause)
        self._bound_models()
        if was_running:
            return []
        detail = f"for {span(block.until - now)}: {cooldown.cause}"
        return [("cooldown", provider.name, cooldown.what, detail)]

    def forget(self, providers: Mapping[str, Provider]) -> None:
        """Drops the state of providers and keys that are no longer in the rules."""
        secrets = {key for provider in providers.values() for key in _secret_keys(provider).values()}
        self._breakers = {name: breaker for name, breaker in self._breakers.items() if name in providers}
        self._cooldowns = {
            key: cooldown
            for key, cooldown in self._cooldowns.items()
            if (key in secrets if key.scope == "key" else key.provider in providers)
        }

    def _blocking(self, key: CooldownKey, now: float) -> Cooldown | None:
        cooldown = self._cooldowns.get(key)
        return None if cooldown is None or cooldown.allows(now) else cooldown

    def _recover(self, attempt: HealthToken) -> list[HealthEvent]:
        ended = [one for one in attempt.cooldowns if self._cooldowns.get(one.key) is one]
        for cooldown in ended:
            del self._cooldowns[cooldown.key]
        return [("recovered", cooldown.key.provider, cooldown.what, "") for cooldown in ended]

    def _cool_down(self, attempt: HealthToken, outcome: Outcome, now: float) -> list[HealthEvent]:
        """Starts the cooldown of an outcome. Only the first of several at the same time is an event."""
        if not outcome.cooldown or outcome.scope == "none":
            return []
        if self._metered and outcome.window is not None and len(attempt.provider.keys) <= 1:
            return []  # the windows of the account are used up: `quota` knows until when
        key, what = _cooldown_key_for(attempt, outcome)
        cooldown = self._cooldowns.pop(key, None) or Cooldown(key, what)
        was_running = bool(cooldown.remaining(now))
        cooldown.prolong(now + outcome.cooldown, outcome)
        self._cooldowns[key] = cooldown
        self._bound_models()
        if was_running:
            return []
        return [("cooldown", key.provider, what, f"for {span(outcome.cooldown)}: {cooldown.cause}")]

    def _bound_models(self) -> None:
        models = [key for key in self._cooldowns if key.scope == "model"]
        if len(models) > MODELS_LIMIT:
            del self._cooldowns[models[0]]


def _target_keys(provider: Provider, model: str | None) -> tuple[CooldownKey, CooldownKey]:
    """The cooldown keys of a request, whichever secret key it uses: provider and model."""
    return CooldownKey(provider.name, "provider", ""), CooldownKey(provider.name, "model", model or "")


def _secret_keys(provider: Provider) -> dict[int | None, CooldownKey]:
    """The cooldown keys of the secret keys that have a value. Without any there is one, for index None."""
    keys: dict[int | None, CooldownKey] = {
        index: CooldownKey(provider.name, "key", secret.value)
        for index, secret in enumerate(provider.keys)
        if secret.value
    }
    return keys or {None: CooldownKey(provider.name, "key", "")}


def _secret_key(provider: Provider, index: int | None) -> tuple[int | None, CooldownKey]:
    keys = _secret_keys(provider)
    return (index, keys[index]) if index in keys else next(iter(keys.items()))


def _what(key: CooldownKey, provider: Provider) -> str:
    """The name of what a cooldown blocks, for people."""
    if key.scope == "model":
        return f"model {key.name}"
    index = next((index for index, own in _secret_keys(provider).items() if own == key), None)
    return key.scope if key.scope == "provider" or index is None else f"key {index + 1}"


def _cooldown_key_for(attempt: HealthToken, outcome: Outcome) -> tuple[CooldownKey, str]:
    """The provider, model or key that an outcome blames, and its name for people."""
    if outcome.scope == "key":
        _, key = _secret_key(attempt.provider, attempt.key_index)
    else:
        provider, model = _target_keys(attempt.provider, attempt.model)
        key = model if outcome.scope == "model" else provider
    return key, _what(key, attempt.provider)


def _judge(attempt: HealthToken, outcome: Outcome | None, now: float) -> list[HealthEvent]:
    """Reports the outcome to the breaker. One that is neither a success nor counted abandons the attempt."""
    breaker, token = attempt.breaker, attempt.breaker_token
    before = breaker.state(now)
    if outcome is not None and outcome.kind == "success":
        breaker.succeeded(token)
    elif outcome is not None and outcome.counts():
        breaker.failed(token, now)
    else:
        breaker.abandoned(token)
    after = breaker.state(now)
    return [("circuit", attempt.provider.name, before, after)] if before != after else []


def span(seconds: float) -> str:
    """`42 s`, `5 min`, `3 h`, `2 d`: rounded up, in the largest unit that gives at least two."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{ceil(seconds / length)} {unit}"
    return f"{ceil(seconds)} s"
