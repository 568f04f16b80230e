"""How providers, their models and their keys stand: who may be asked now, and why not.

No clock here: `now` is seconds of any clock that never goes back.
"""

from collections.abc import Mapping
from hashlib import blake2b
from math import ceil, inf
from typing import Literal, NamedTuple

import msgspec

from signalbox.config.rules import Provider
from signalbox.routing.circuit import Breaker, Gate, State, Ticket
from signalbox.routing.facts import Conversation
from signalbox.routing.outcome import Outcome

BRIEF = 60.0
"""Seconds of cooldown after which, at most, a target is asked all the same when all others have failed (the
contract, section 4)."""
MODELS_LIMIT = 1000
"""Resting models that are remembered: callers name them."""

type Event = tuple[Literal["circuit", "cooldown", "recovered"], str, str, str]
"""What an attempt changed, in one of three forms, all text for people:

- `("circuit", provider, state before, state after)`
- `("cooldown", provider, what of it, "for 30 s: rate_limit_error")`, what being `provider`, `model glm-4.7`
  or `key 2`
- `("recovered", provider, what of it, "")`
"""


class Place(NamedTuple):
    """What may rest. `name` is the model, or the key itself, which never leaves this module."""

    provider: str
    scope: Literal["provider", "model", "key"]
    name: str


class Rest(Gate):
    """A place is left alone for as long as an outcome said; then one trial at a time, until one succeeds."""

    def __init__(self, place: Place, what: str) -> None:
        super().__init__(until=-inf)
        self.place = place
        self.what = what
        self.reason = ""
        self.cause = ""

    def prolong(self, until: float, outcome: Outcome) -> None:
        """The longer rest wins."""
        if until > self.until:
            self.until = until
            window = f":{outcome.window}" if outcome.window is not None else ""
            self.reason = f"quota{window}" if outcome.kind == "quota" else "cooldown"
            self.cause = outcome.detail or outcome.label

    def refusal(self, now: float) -> tuple[str, str]:
        remaining = self.remaining(now)
        when = f"in cooldown for another {span(remaining)}" if remaining else "being tried again"
        return self.reason, f"{when}: {self.cause}"


class Attempt(msgspec.Struct, frozen=True, eq=False):
    """One request to one provider, from when it is sent until it is judged."""

    provider: Provider
    model: str | None
    key_index: int | None
    breaker: Breaker
    ticket: Ticket
    met: tuple[Rest, ...]
    """The rests, running or over, that it met when it began: what its success ends."""


class Standing:
    """The circuits of all providers and the rests of providers, models and keys."""

    def __init__(self, *, metered: bool = True) -> None:
        """`metered`: `quota.Quotas` hears the same answers, and knows until when a window is used up."""
        self._metered = metered
        self._breakers: dict[str, Breaker] = {}
        self._rests: dict[Place, Rest] = {}

    def refusal(self, provider: Provider, model: str | None, now: float) -> tuple[str, str] | None:
        """Why this target cannot be asked now, as in `plan.Refusal`: `circuit`, `cooldown`, `quota` or
        `quota:7d`."""
        breaker = self._breakers.get(provider.name)
        if breaker is not None and not breaker.allows(now):
            remaining = breaker.remaining(now)
            detail = f"open for another {span(remaining)}" if remaining else "half-open, being tried again"
            return "circuit", detail
        longest = self._longest(provider, model, now)
        return longest.refusal(now) if longest is not None else None

    def is_last_resort(self, provider: Provider, model: str | None, now: float) -> bool:
        """Whether there is nothing against this target but an open circuit or a cooldown that is over within
        a minute: then it is asked when all others have failed."""
        longest = self._longest(provider, model, now)
        return longest is None or longest.remaining(now) <= BRIEF

    def _longest(self, provider: Provider, model: str | None, now: float) -> Rest | None:
        """Of the cooldowns that shut this target out the one that ends last; of its keys one is enough."""
        shut = [rest for place in _places(provider, model) if (rest := self._shut(place, now))]
        keys = [self._shut(place, now) for place in _keys(provider).values()]
        if all(keys):
            shut.append(min(filter(None, keys), key=lambda rest: rest.remaining(now)))
        return max(shut, key=lambda rest: rest.remaining(now), default=None)

    def next_key(self, provider: Provider, now: float) -> int | None:
        """Of keys that are all in cooldown the one that recovers first; None where there is no key."""
        ends = {
            index: rest.remaining(now) if (rest := self._rests.get(place)) else 0.0
            for index, place in _keys(provider).items()
        }
        return min(ends, key=lambda index: ends[index])

    def pick_key(
        self,
        provider: Provider,
        conversation: Conversation | None,
        now: float,
        *,
        without: frozenset[int | None] = frozenset(),
    ) -> int | None:
        """The index of the key to use, but none of `without`; None where there is none that does not rest.

        By rendezvous hashing a conversation keeps its key while that is well, and many conversations
        spread. Without conversation it is the first that is well.
        """
        usable = {
            index: place
            for index, place in _keys(provider).items()
            if index is not None and index not in without and not self._shut(place, now)
        }
        if conversation is None:
            return next(iter(usable), None)

        def weight(index: int) -> bytes:
            text = "\n".join((*conversation, usable[index].name))
            return blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()

        return min(usable, key=weight, default=None)

    def begin(self, provider: Provider, model: str | None, key_index: int | None, now: float) -> Attempt:
        """An attempt is sent, refused or not; where a rest is over it is the trial.

        `key_index` None: with the first key, if there is one at all.
        """
        breaker = self._breakers.setdefault(provider.name, Breaker(provider.circuit))
        breaker.circuit = provider.circuit
        ticket = breaker.begin(now)
        places = (*_places(provider, model), _key(provider, key_index)[1])
        met = tuple(rest for place in places if (rest := self._rests.get(place)) is not None)
        for rest in met:
            rest.enter(ticket, now)
        return Attempt(provider, model, key_index, breaker, ticket, met)

    def began(self, attempt: Attempt) -> list[Event]:
        """The attempt's answer has begun. That ends the cooldowns that the attempt met: the provider accepts
        this model and key again. It says nothing to the circuit, for the answer may still break off."""
        return self._wake(attempt)

    def end(self, attempt: Attempt, outcome: Outcome | None, now: float) -> list[Event]:
        """The attempt is judged, once: its answer has ended, or it failed. None: it was abandoned, as when
        the client leaves, and nothing is learned.

        To abandon what was judged before changes nothing.
        """
        events = _judge(attempt, outcome, now)
        for rest in attempt.met:
            rest.leave(attempt.ticket)
        if outcome is not None:
            events += self._wake(attempt) if outcome.kind == "success" else self._rest(attempt, outcome, now)
        return events

    def circuits(self, now: float) -> dict[str, State]:
        """By provider, for those that were ever asked; all others are closed."""
        return {name: breaker.state(now) for name, breaker in self._breakers.items()}

    def resting(self, now: float) -> list[tuple[str, str, str]]:
        """(provider, `model glm-4.7`, `in cooldown for another 5 s: 429`) for each running cooldown."""
        return [
            (rest.place.provider, rest.what, rest.refusal(now)[1])
            for rest in self._rests.values()
            if rest.remaining(now)
        ]

    def forget(self, providers: Mapping[str, Provider]) -> None:
        """Drop what is known of providers, and of keys, that are not in the rules any more."""
        keys = {place for provider in providers.values() for place in _keys(provider).values()}
        self._breakers = {name: breaker for name, breaker in self._breakers.items() if name in providers}
        self._rests = {
            place: rest
            for place, rest in self._rests.items()
            if (place in keys if place.scope == "key" else place.provider in providers)
        }

    def _shut(self, place: Place, now: float) -> Rest | None:
        rest = self._rests.get(place)
        return None if rest is None or rest.allows(now) else rest

    def _wake(self, attempt: Attempt) -> list[Event]:
        ended = [rest for rest in attempt.met if self._rests.get(rest.place) is rest]
        for rest in ended:
            del self._rests[rest.place]
        return [("recovered", rest.place.provider, rest.what, "") for rest in ended]

    def _rest(self, attempt: Attempt, outcome: Outcome, now: float) -> list[Event]:
        """Note the rest that an outcome asks for. Many that ask for the same at once are one event."""
        if not outcome.rest or outcome.scope == "none":
            return []
        if self._metered and outcome.window is not None and len(attempt.provider.keys) <= 1:
            return []  # the windows of the account are used up: `quota` knows until when
        place, what = _blamed(attempt, outcome)
        rest = self._rests.pop(place, None) or Rest(place, what)
        was_running = bool(rest.remaining(now))
        rest.prolong(now + outcome.rest, outcome)
        self._rests[place] = rest
        self._bound_models()
        if was_running:
            return []
        return [("cooldown", place.provider, what, f"for {span(outcome.rest)}: {rest.cause}")]

    def _bound_models(self) -> None:
        models = [place for place in self._rests if place.scope == "model"]
        if len(models) > MODELS_LIMIT:
            del self._rests[models[0]]


def _places(provider: Provider, model: str | None) -> tuple[Place, Place]:
    """What a request needs to be well, whichever key it uses."""
    return Place(provider.name, "provider", ""), Place(provider.name, "model", model or "")


def _keys(provider: Provider) -> dict[int | None, Place]:
    """The keys that have a value. Where there are none, whatever is used instead counts as one."""
    keys: dict[int | None, Place] = {
        index: Place(provider.name, "key", secret.value)
        for index, secret in enumerate(provider.keys)
        if secret.value
    }
    return keys or {None: Place(provider.name, "key", "")}


def _key(provider: Provider, index: int | None) -> tuple[int | None, Place]:
    keys = _keys(provider)
    return (index, keys[index]) if index in keys else next(iter(keys.items()))


def _blamed(attempt: Attempt, outcome: Outcome) -> tuple[Place, str]:
    """What an outcome lays to rest, and how it is called."""
    if outcome.scope == "key":
        index, key = _key(attempt.provider, attempt.key_index)
        return key, "key" if index is None else f"key {index + 1}"
    provider, model = _places(attempt.provider, attempt.model)
    return (model, f"model {model.name}") if outcome.scope == "model" else (provider, "provider")


def _judge(attempt: Attempt, outcome: Outcome | None, now: float) -> list[Event]:
    """Tell the breaker. What is neither a success nor counted says nothing about the provider's health."""
    breaker, ticket = attempt.breaker, attempt.ticket
    before = breaker.state(now)
    if outcome is not None and outcome.kind == "success":
        breaker.succeeded(ticket)
    elif outcome is not None and outcome.counts():
        breaker.failed(ticket, now)
    else:
        breaker.abandoned(ticket)
    after = breaker.state(now)
    return [("circuit", attempt.provider.name, before, after)] if before != after else []


def span(seconds: float) -> str:
    """`42 s`, `5 min`, `3 h`, `2 d`: rounded up, in the largest unit of which there are at least two."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{ceil(seconds / length)} {unit}"
    return f"{ceil(seconds)} s"
