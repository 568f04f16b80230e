"""The attempts of one request: their order, and what health learns of them."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.config.fields import Secret, Url
from signalbox.config.rules import Circuit, Failover, Provider, Reject, Target
from signalbox.routing.attempts import Attempt, AttemptSequence, Availability
from signalbox.routing.credentials import Caller
from signalbox.routing.health import HealthEvent, ProviderHealth
from signalbox.routing.outcome import CONNECT, Outcome, success
from signalbox.routing.plan import Candidate

HERE = ("s-1", "")
NEVER = Circuit(open_after=10**6, degraded_after=10**6)

REFUSED_KEY = Outcome("401", "auth", 401, cooldown=60.0, scope="key")
THROTTLED = Outcome("429", "throttle", 429, cooldown=7.0, scope="key", wait=7.0)
OVERLOADED = Outcome("529", "overload", 529, cooldown=5.0, scope="model")
DOWN = Outcome("503", "overload", 503, cooldown=30.0, scope="provider")
BROKEN = Outcome("500", "server", 500)
NONSENSE = Outcome("400", "client", 400)
CUT = Outcome("stream_error", "stream_error")
REJECT = Reject(429, "come back later")


def provider(name: str, *keys: str | None, circuit: Circuit = NEVER) -> Provider:
    secrets = tuple(Secret(key) for key in keys)
    return Provider(name=name, url=Url("https", f"{name}.invalid", 443), keys=secrets, circuit=circuit)


ZAI = provider("zai", "zai-key-1", None, "zai-key-2")
KIMI = provider("kimi", "kimi-key")
LOCAL = provider("local")


def candidate(asked: Provider, model: str = "glm") -> Candidate:
    return Candidate(asked, Target(asked.name, model), model)


class Blocked:
    """Accounts of which some providers' have nothing left."""

    def __init__(self, *blocked: Provider) -> None:
        self.blocked = blocked

    def refusal(self, provider: Provider, model: str | None, caller: Caller) -> tuple[str, str] | None:
        return ("quota", "used up") if provider in self.blocked else None


class Request:
    """A sequence with what was sent and reported. `now` stands still unless a test moves it."""

    def __init__(
        self,
        *candidates: Candidate,
        health: ProviderHealth | None = None,
        reject: Reject | None = None,
        against: tuple[Provider, ...] = (),
        chain: tuple[Candidate, ...] = (),
        **failover: Any,
    ) -> None:
        self.health = health or ProviderHealth()
        self.sent: list[tuple[str, str | None]] = []
        self.only: list[bool] = []
        self.events: list[HealthEvent] = []
        self.failed: list[tuple[str, str]] = []
        """(provider, label) of every attempt that something else followed."""
        self.now = 0.0
        self.unpreparable: Provider | None = None
        self.sequence = AttemptSequence(
            candidates,
            Failover(**failover),
            Availability(self.health, Blocked(*against), Caller(())),
            HERE,
            reject=reject,
            chain=chain,
        )

    def start(self) -> Attempt:
        attempt = self._sent(self.sequence.first(self.now))
        assert isinstance(attempt, Attempt)
        return attempt

    def fails(self, outcome: Outcome) -> Attempt | Reject | None:
        current = self.sequence.current
        self.ends(outcome)
        following = self._sent(self.sequence.after(outcome, self.now))
        if following is not None:
            assert current is not None
            self.failed.append((current.provider.name, outcome.label))
        return following

    def _sent(self, attempt: Attempt | Reject | None) -> Attempt | Reject | None:
        while isinstance(attempt, Attempt) and attempt.provider is self.unpreparable:
            attempt = self.sequence.instead(self.now)
        if isinstance(attempt, Attempt):
            self.sent.append((attempt.provider.name, attempt.key))
            self.only.append(attempt.is_only_candidate)
            self.sequence.start(attempt, self.now + attempt.delay)
        return attempt

    def begins(self) -> None:
        self.events += self.sequence.answer_began()

    def ends(self, outcome: Outcome | None, now: float | None = None) -> None:
        self.events += self.sequence.settle(outcome, self.now if now is None else now)

    def run(self, *outcomes: Outcome) -> list[tuple[str, str | None]]:
        """Whom a request asks that meets these, one after the other."""
        self.start()
        for outcome in outcomes:
            self.fails(outcome)
        return self.sent


def refusal(request: Request, asked: Provider, model: str = "glm") -> Any:
    return request.health.refusal(asked, model, request.now)


# the next target


def test_unpreparable_candidate_is_skipped():
    """The plan looks at a few fields only."""
    request = Request(candidate(KIMI), candidate(LOCAL), candidate(KIMI), candidate(ZAI))
    request.unpreparable = KIMI
    assert request.start().provider is LOCAL
    following = request.fails(BROKEN)
    assert isinstance(following, Attempt)
    assert following.provider is ZAI
    only = Request(candidate(KIMI))
    only.sequence.first(0)
    assert only.sequence.instead(0) is None


def test_candidates_are_asked_in_order_until_one_answers():
    request = Request(candidate(KIMI), candidate(LOCAL), candidate(ZAI))
    assert request.run(BROKEN, CONNECT)[:2] == [("kimi", "kimi-key"), ("local", None)]
    assert request.failed == [("kimi", "500"), ("local", "connect")]
    assert request.sequence.current is not None
    assert request.sequence.current.provider is ZAI


def test_candidate_without_quota_is_skipped():
    request = Request(candidate(KIMI), candidate(LOCAL), candidate(ZAI), against=(LOCAL,))
    assert [name for name, _ in request.run(BROKEN)] == ["kimi", "zai"]
    alone = Request(candidate(KIMI), candidate(LOCAL), against=(LOCAL,))
    alone.start()
    assert not alone.sequence.could_follow(0)


def test_last_failure_is_delivered():
    request = Request(candidate(KIMI), candidate(LOCAL))
    request.start()
    request.fails(BROKEN)
    assert request.fails(BROKEN) is None
    assert request.failed == [("kimi", "500")]


def test_outcome_missing_in_failover_on_is_delivered():
    request = Request(candidate(KIMI), candidate(LOCAL), on=frozenset({"529"}))
    request.start()
    assert request.fails(BROKEN) is None
    assert request.sent == [("kimi", "kimi-key")]


def test_candidate_that_entered_cooldown_meanwhile_is_skipped():
    request = Request(candidate(KIMI), candidate(LOCAL), candidate(ZAI))
    request.start()
    another = request.health.begin(LOCAL, "glm", None, 0)
    request.health.end(another, DOWN, 0)
    request.fails(BROKEN)
    assert [name for name, _ in request.sent] == ["kimi", "zai"]


def test_candidate_of_a_provider_in_cooldown_comes_last():
    request = Request(candidate(KIMI, "big"), candidate(KIMI, "small"), candidate(LOCAL))
    assert [name for name, _ in request.run(DOWN, BROKEN, BROKEN)] == ["kimi", "local", "kimi"]
    down = msgspec.structs.replace(DOWN, cooldown=61.0)
    request = Request(candidate(KIMI, "big"), candidate(KIMI, "small"))
    request.start()
    assert request.fails(down) is None
    assert request.failed == []


def test_first_candidate_is_asked_even_in_cooldown():
    health = ProviderHealth()
    health.end(health.begin(KIMI, "glm", 0, 0), DOWN, 0)
    assert Request(candidate(KIMI), health=health).run() == [("kimi", "kimi-key")]


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: Request(candidate(KIMI)), False),
        (lambda: Request(candidate(KIMI), candidate(LOCAL)), True),
        (lambda: Request(candidate(ZAI)), True),
        (lambda: Request(candidate(KIMI), retries=1), True),
        (lambda: Request(candidate(KIMI), wait=1.0), True),
        (lambda: Request(candidate(KIMI), reject=REJECT), True),
    ],
    ids=["alone", "a target", "a key", "a retry", "a wait", "a reject"],
)
def test_could_follow_says_whether_anything_takes_over(make: Callable[[], Request], expected: bool):
    request = make()
    assert not request.sequence.could_follow(0)
    request.start()
    assert request.sequence.could_follow(0) is expected
    assert request.only == [not expected]


def test_nothing_could_follow_the_last_candidate():
    request = Request(candidate(KIMI), candidate(LOCAL))
    request.run(BROKEN)
    assert request.only == [False, True]
    assert not request.sequence.could_follow(0)


# when all have failed


def passed_over(
    *candidates: Candidate, health: ProviderHealth, available: Candidate, **settings: Any
) -> Request:
    return Request(available, health=health, chain=candidates, **settings)


def rested(asked: Provider, outcome: Outcome, health: ProviderHealth, model: str = "glm") -> None:
    health.end(health.begin(asked, model, None, 0), outcome, 0)


def test_last_resorts_are_asked_when_all_others_have_failed():
    health = ProviderHealth()
    broken = provider("broken", circuit=Circuit(degraded_after=1, open_after=1, cooldown=3600.0))
    spent = provider("spent")
    rested(KIMI, OVERLOADED, health)
    rested(broken, BROKEN, health)
    rested(spent, msgspec.structs.replace(THROTTLED, cooldown=60.5), health)
    targets = [candidate(one) for one in (KIMI, broken, spent, LOCAL)]
    request = passed_over(*targets, health=health, available=targets[-1], retries=1, wait=10.0)
    assert request.start().provider is LOCAL
    assert request.only == [False]
    for expected in (LOCAL, KIMI, broken):
        assert request.sequence.could_follow(request.now)
        following = request.fails(BROKEN)
        assert isinstance(following, Attempt)
        assert following.provider is expected
    assert not request.sequence.could_follow(request.now)
    assert request.fails(THROTTLED) is None, "once each: no retries, no waits"
    assert request.sequence.not_asked(request.now) == [
        ("spent", "cooldown, in cooldown for another 61 s: 429")
    ]


def test_waiting_candidate_in_a_short_cooldown_could_follow():
    request = Request(candidate(KIMI), candidate(KIMI))
    request.start()
    rested(KIMI, OVERLOADED, request.health)
    assert request.sequence.could_follow(request.now)
    assert isinstance(request.fails(BROKEN), Attempt)


def test_candidate_without_quota_is_no_last_resort():
    health = ProviderHealth()
    rested(KIMI, OVERLOADED, health)
    targets = candidate(KIMI), candidate(LOCAL)
    request = passed_over(*targets, health=health, available=targets[1], against=(KIMI,))
    request.start()
    assert not request.sequence.could_follow(0)
    assert request.fails(BROKEN) is None


def test_reject_comes_after_last_resorts():
    health = ProviderHealth()
    rested(KIMI, OVERLOADED, health)
    targets = candidate(KIMI), candidate(LOCAL)
    request = passed_over(*targets, health=health, available=targets[1], reject=REJECT)
    assert [name for name, _ in request.run(BROKEN)] == ["local", "kimi"]
    assert request.fails(BROKEN) is REJECT


def test_client_error_is_delivered_before_last_resorts():
    health = ProviderHealth()
    rested(KIMI, OVERLOADED, health)
    targets = candidate(KIMI), candidate(LOCAL)
    request = passed_over(*targets, health=health, available=targets[1])
    request.start()
    assert request.fails(NONSENSE) is None


def test_last_resort_replaces_an_unpreparable_first_candidate():
    health = ProviderHealth()
    rested(KIMI, OVERLOADED, health)
    targets = candidate(KIMI), candidate(LOCAL)
    request = passed_over(*targets, health=health, available=targets[1])
    request.unpreparable = LOCAL
    assert request.start().provider is KIMI


def test_last_resort_uses_the_key_that_recovers_first():
    health = ProviderHealth()
    for index, rest in ((0, 50.0), (2, 3.0)):
        outcome = msgspec.structs.replace(THROTTLED, cooldown=rest)
        health.end(health.begin(ZAI, "glm", index, 0), outcome, 0)
    targets = candidate(ZAI), candidate(LOCAL)
    request = passed_over(*targets, health=health, available=targets[1])
    assert request.run(BROKEN) == [("local", None), ("zai", "zai-key-2")]


# keys


@pytest.mark.parametrize("outcome", [REFUSED_KEY, THROTTLED], ids=["401", "429"])
def test_failed_key_is_followed_by_another_at_once(outcome: Outcome):
    request = Request(candidate(ZAI), candidate(LOCAL), wait=60.0, retries=3, on=frozenset({"429"}))
    first, then = request.run(outcome)
    assert {first, then} == {("zai", "zai-key-1"), ("zai", "zai-key-2")}


def test_next_candidate_follows_when_all_keys_have_failed():
    request = Request(candidate(ZAI), candidate(LOCAL))
    assert [name for name, _ in request.run(REFUSED_KEY, REFUSED_KEY)] == ["zai", "zai", "local"]


def test_key_in_cooldown_is_not_used():
    health = ProviderHealth()
    for index in (0, 2):
        health.end(health.begin(ZAI, "glm", index, 0), REFUSED_KEY, 0)
    request = Request(candidate(ZAI), health=health)
    request.start()
    assert request.fails(REFUSED_KEY) is None
    assert len(request.sent) == 1


def test_no_key_is_used_twice_even_without_cooldown():
    at_once = msgspec.structs.replace(THROTTLED, cooldown=0.0, wait=None)
    request = Request(candidate(ZAI), candidate(LOCAL))
    assert [name for name, _ in request.run(at_once, at_once)] == ["zai", "zai", "local"]


def test_failure_of_the_provider_keeps_the_key():
    request = Request(candidate(ZAI), candidate(LOCAL), retries=1)
    first, again, then = request.run(BROKEN, BROKEN)
    assert first == again
    assert then == ("local", None)


# retries and waits


def test_each_candidate_gets_its_own_retries():
    request = Request(candidate(KIMI), candidate(LOCAL), retries=2)
    assert [name for name, _ in request.run(*[BROKEN] * 9)] == ["kimi"] * 3 + ["local"] * 3


def test_retry_after_within_the_limit_is_waited_for():
    request = Request(candidate(KIMI), candidate(LOCAL), wait=10.0)
    request.start()
    following = request.fails(THROTTLED)
    assert isinstance(following, Attempt)
    assert (following.provider, following.delay) == (KIMI, 7.0)
    request.now = 7.0
    request.begins()
    assert refusal(request, KIMI) is None


def test_same_key_is_used_after_a_wait():
    health = ProviderHealth()
    health.end(health.begin(ZAI, "glm", 0, 0), msgspec.structs.replace(REFUSED_KEY, cooldown=9e9), 0)
    request = Request(candidate(ZAI), health=health, wait=10.0)
    assert request.run(THROTTLED) == [("zai", "zai-key-2")] * 2


@pytest.mark.parametrize(
    "outcome",
    [msgspec.structs.replace(THROTTLED, wait=10.5), OVERLOADED, msgspec.structs.replace(THROTTLED, wait=0.0)],
    ids=["longer", "none named", "nothing"],
)
def test_longer_or_missing_retry_after_fails_over(outcome: Outcome):
    request = Request(candidate(KIMI), candidate(LOCAL), wait=10.0)
    request.start()
    following = request.fails(outcome)
    assert isinstance(following, Attempt)
    assert (following.provider, following.delay) == (LOCAL, 0.0)


def test_waits_of_one_candidate_share_the_limit():
    hasty = msgspec.structs.replace(THROTTLED, wait=0.001)
    request = Request(candidate(KIMI), candidate(LOCAL), wait=3.0)
    assert [name for name, _ in request.run(*[hasty] * 4)] == ["kimi"] * 4 + ["local"]


# a list that ends in a reject


def test_reject_follows_the_last_candidate():
    request = Request(candidate(KIMI), reject=REJECT)
    request.start()
    assert request.fails(BROKEN) is REJECT
    assert request.failed == [("kimi", "500")]
    assert request.sequence.current is None
    assert not request.sequence.could_follow(0)


def test_client_error_is_delivered_before_a_reject():
    request = Request(candidate(KIMI), reject=REJECT)
    request.start()
    assert request.fails(NONSENSE) is None


# what is remembered


def failures(request: Request, asked: Provider) -> str:
    return request.health.circuits(request.now)[asked.name]


def test_attempt_is_settled_once():
    one = provider("one", circuit=Circuit(degraded_after=2, open_after=3))
    request = Request(candidate(one))
    request.start()
    assert request.fails(BROKEN) is None
    request.ends(BROKEN, 0)
    request.ends(None, 0)
    assert failures(request, one) == "closed"
    Request(candidate(one), health=request.health).run(BROKEN)
    assert failures(request, one) == "degraded"


def test_circuit_closes_only_when_the_answer_has_ended():
    one = provider("one", circuit=Circuit(degraded_after=1, open_after=3))
    request = Request(candidate(one), candidate(one))
    request.run(BROKEN)
    request.begins()
    assert failures(request, one) == "degraded"
    request.ends(success(200), 60)
    assert failures(request, one) == "closed"


def test_answers_that_break_off_open_the_circuit():
    one = provider("one", circuit=Circuit(degraded_after=3, open_after=5))
    health = ProviderHealth()
    states = []
    for _ in range(5):
        request = Request(candidate(one), health=health)
        request.start()
        request.begins()
        request.ends(CUT, 1)
        states.append(failures(request, one))
    assert states == ["closed", "closed", "degraded", "degraded", "open"]


def test_answer_that_begins_ends_the_cooldown():
    """A long answer would otherwise keep all others away for its whole length."""
    request = Request(candidate(KIMI))
    request.run(OVERLOADED)
    request.now = 5.0
    following = Request(candidate(KIMI), health=request.health)
    following.now = 5.0
    following.start()
    assert refusal(following, KIMI) is not None, "one trial"
    following.begins()
    assert refusal(following, KIMI) is None
    following.ends(OVERLOADED, 20)
    following.now = 20.0
    assert refusal(following, KIMI) is not None


@pytest.mark.parametrize("began", [False, True], ids=["before the answer", "in mid-answer"])
def test_client_that_leaves_does_not_change_the_circuit(began):
    one = provider("one", circuit=Circuit(degraded_after=1, open_after=1, cooldown=10.0))
    Request(candidate(one), health=(health := ProviderHealth())).run(BROKEN)
    request = Request(candidate(one), health=health)
    request.now = 10.0
    request.start()
    assert refusal(request, one) == ("circuit", "half-open, being tried again")
    if began:
        request.begins()
        assert refusal(request, one) == ("circuit", "half-open, being tried again")
    request.ends(None, 11.0)
    assert refusal(request, one) is None
    assert failures(request, one) == "half-open"


def test_unprepared_attempt_does_not_take_the_probe_slot():
    one = provider("one", circuit=Circuit(degraded_after=1, open_after=1, cooldown=10.0))
    Request(candidate(one), health=(health := ProviderHealth())).run(BROKEN)
    request = Request(candidate(one), health=health)
    request.now = 10.0
    request.sequence.first(request.now)
    assert refusal(request, one) is None


def test_settle_returns_health_events():
    request = Request(candidate(KIMI), candidate(LOCAL))
    request.run(DOWN)
    assert request.events == [("cooldown", "kimi", "provider", "for 30 s: 503")]


OUTCOMES = [REFUSED_KEY, THROTTLED, OVERLOADED, DOWN, BROKEN, NONSENSE, CUT, CONNECT]


@given(
    outcomes=st.lists(st.sampled_from(OUTCOMES), min_size=40, max_size=40),
    providers=st.lists(st.sampled_from([ZAI, KIMI, LOCAL]), min_size=1, max_size=4),
    retries=st.integers(0, 2),
    wait=st.floats(0, 20),
    reject=st.sampled_from([None, REJECT]),
)
def test_every_attempt_is_followed_or_delivered_and_every_sequence_ends(
    outcomes, providers, retries, wait, reject
):
    request = Request(*map(candidate, providers), reject=reject, retries=retries, wait=wait)
    request.start()
    for outcome in outcomes:
        could = request.sequence.could_follow(request.now)
        following = request.fails(outcome)
        assert could or following is None
        if not isinstance(following, Attempt):
            break
        request.now += following.delay
    assert not isinstance(following, Attempt)
    assert len(request.sent) == len(request.failed) + (following is None)
    assert request.fails(BROKEN) is None
