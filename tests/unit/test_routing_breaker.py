"""The circuit of one provider: when it opens, whom it admits, how it closes."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from signalbox.config.rules import Circuit
from signalbox.routing.health import PROBE_FORGOTTEN, Breaker, BreakerToken, ProbeGate

CIRCUIT = Circuit(degraded_after=2, open_after=3, cooldown=60.0)


def fail(breaker: Breaker, times: int, now: float = 0.0) -> None:
    for _ in range(times):
        breaker.failed(breaker.begin(now), now)


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker(CIRCUIT)
    fail(breaker, 3, now)
    return breaker


def test_consecutive_failures_degrade_it_and_then_open_it():
    breaker = Breaker(CIRCUIT)
    states = []
    for _ in range(3):
        fail(breaker, 1)
        states.append((breaker.state(0), breaker.allows(0)))
    assert states == [("closed", True), ("degraded", True), ("open", False)]


def test_a_success_resets_the_count():
    breaker = Breaker(CIRCUIT)
    fail(breaker, 2)
    breaker.succeeded(breaker.begin(0))
    assert breaker.state(0) == "closed"
    fail(breaker, 2)
    assert breaker.state(0) == "degraded"


def test_it_stays_open_for_the_cooldown():
    breaker = opened(now=100)
    assert breaker.remaining(100) == 60
    assert (breaker.state(159.9), breaker.allows(159.9)) == ("open", False)
    assert (breaker.state(160), breaker.allows(160)) == ("half-open", True)
    assert breaker.remaining(160) == 0


def test_half_open_admits_one_probe_whose_success_closes_it():
    breaker = opened()
    probe = breaker.begin(60)
    assert not breaker.allows(61)
    breaker.succeeded(probe)
    assert breaker.state(61) == "closed"
    fail(breaker, 2, now=61)
    assert breaker.state(61) == "degraded"


def test_failed_probe_opens_it_for_another_cooldown():
    breaker = opened()
    breaker.failed(breaker.begin(60), 70)
    assert (breaker.state(70), breaker.remaining(70)) == ("open", 60)


def test_abandoned_probe_frees_its_slot():
    breaker = opened()
    breaker.abandoned(breaker.begin(60))
    assert (breaker.state(61), breaker.allows(61)) == ("half-open", True)


def test_probe_that_never_ends_is_forgotten():
    breaker = opened()
    breaker.begin(60)
    assert not breaker.allows(60 + PROBE_FORGOTTEN - 0.1)
    assert breaker.allows(60 + PROBE_FORGOTTEN)


def test_forgotten_probe_that_fails_opens_it_unless_another_closed_it():
    breaker = opened()
    forgotten = breaker.begin(60)
    following = breaker.begin(120)
    breaker.failed(forgotten, 130)
    assert breaker.remaining(130) == 60
    breaker.succeeded(following)
    assert breaker.state(131) == "open"

    breaker = opened()
    forgotten = breaker.begin(60)
    breaker.succeeded(breaker.begin(120))
    breaker.failed(forgotten, 130)
    assert breaker.state(130) == "closed"


def test_abandoning_does_not_judge():
    breaker = Breaker(CIRCUIT)
    fail(breaker, 2)
    breaker.abandoned(breaker.begin(0))
    assert breaker.state(0) == "degraded"


def test_attempts_from_before_it_opened_neither_close_it_nor_prolong_the_cooldown():
    breaker = Breaker(CIRCUIT)
    old = [breaker.begin(0) for _ in range(5)]
    for token in old[:3]:
        breaker.failed(token, 10)
    breaker.failed(old[3], 30)
    breaker.succeeded(old[4])
    assert (breaker.state(30), breaker.remaining(30)) == ("open", 40)


def test_many_hung_attempts_that_end_after_it_closed_do_not_open_it_again():
    breaker = Breaker(CIRCUIT)
    hung = [breaker.begin(0) for _ in range(50)]
    for token in hung[:3]:
        breaker.failed(token, 10)
    breaker.succeeded(breaker.begin(70))
    for token in hung[3:]:
        breaker.failed(token, 120)
    assert breaker.state(120) == "closed"


def test_a_late_success_resets_a_closed_circuit():
    breaker = Breaker(CIRCUIT)
    old = breaker.begin(0)
    fail(breaker, 3)
    breaker.succeeded(breaker.begin(60))
    fail(breaker, 2, now=61)
    breaker.succeeded(old)
    assert breaker.state(61) == "closed"


def test_forced_request_may_close_an_open_circuit_but_not_prolong_it():
    breaker = opened()
    breaker.failed(breaker.begin(10), 20)
    assert breaker.remaining(20) == 40
    breaker.succeeded(breaker.begin(20))
    assert breaker.state(20) == "closed"


def test_forced_request_does_not_take_the_probe_slot():
    breaker = opened()
    breaker.begin(60)
    beside = breaker.begin(61)
    breaker.abandoned(beside)
    assert not breaker.allows(62)
    breaker.failed(beside, 62)
    assert breaker.state(62) == "half-open"


def test_new_limits_apply_from_the_next_outcome():
    breaker = Breaker(CIRCUIT)
    fail(breaker, 2)
    breaker.circuit = Circuit(degraded_after=3, open_after=10, cooldown=5.0)
    assert breaker.state(0) == "closed"
    fail(breaker, 1)
    assert breaker.state(0) == "degraded"
    fail(breaker, 7)
    assert breaker.remaining(0) == 5


@pytest.mark.parametrize(
    ("now", "remaining", "allows"), [(9.0, 1.0, False), (10.0, 0.0, True), (99.0, 0.0, True)]
)
def test_gate_is_closed_until_its_moment(now, remaining, allows):
    gate = ProbeGate(until=10)
    assert (gate.remaining(now), gate.allows(now)) == (remaining, allows)


class Life(RuleBasedStateMachine):
    """Requests begin and end in any order, at any time, with any outcome; some are sent though refused."""

    running = Bundle("running")

    @initialize(open_after=st.integers(1, 4), cooldown=st.sampled_from([0.0, 10.0, 200.0]))
    def begin_to_live(self, open_after: int, cooldown: float) -> None:
        self.now = 1000.0
        self.circuit = Circuit(degraded_after=2, open_after=open_after, cooldown=cooldown)
        self.breaker = Breaker(self.circuit)
        self.probes: dict[BreakerToken, float] = {}
        """Those that run, and since when. An opening or closing ends their time."""

    @rule(seconds=st.sampled_from([0.5, 5.0, 10.0, PROBE_FORGOTTEN, 200.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(target=running)
    def a_request_is_sent(self) -> BreakerToken:
        was_half_open = self.breaker.state(self.now) == "half-open"
        allowed = self.breaker.allows(self.now)
        token = self.breaker.begin(self.now)
        assert token.is_probe == (was_half_open and allowed)
        if token.is_probe:
            young = [t for t, began in self.probes.items() if self.now - began < PROBE_FORGOTTEN]
            assert not young, "half-open admits one at a time"
            self.probes[token] = self.now
            assert not self.breaker.allows(self.now)
        return token

    @rule(token=consumes(running))
    def it_succeeds(self, token: BreakerToken) -> None:
        before, remaining = self.breaker.state(self.now), self.breaker.remaining(self.now)
        self.breaker.succeeded(token)
        self.probes.pop(token, None)
        if before in ("closed", "degraded"):
            assert self.breaker.state(self.now) == "closed", "a success resets"
        elif self.breaker.state(self.now) == before:
            assert self.breaker.remaining(self.now) == remaining
        else:
            assert self.breaker.state(self.now) == "closed"
            self.probes.clear()

    @rule(token=consumes(running))
    def it_fails(self, token: BreakerToken) -> None:
        before, remaining = self.breaker.state(self.now), self.breaker.remaining(self.now)
        self.breaker.failed(token, self.now)
        self.probes.pop(token, None)
        if before == "open":
            assert self.breaker.remaining(self.now) == remaining, "no failure prolongs the cooldown"
        if before == "half-open" and self.breaker.remaining(self.now) == self.circuit.cooldown:
            self.probes.clear()

    @rule(token=consumes(running))
    def its_client_leaves(self, token: BreakerToken) -> None:
        before = self.breaker.state(self.now), self.breaker.remaining(self.now)
        self.breaker.abandoned(token)
        self.probes.pop(token, None)
        assert (self.breaker.state(self.now), self.breaker.remaining(self.now)) == before

    @rule()
    def a_success_resets(self) -> None:
        if self.breaker.allows(self.now):
            self.breaker.succeeded(self.breaker.begin(self.now))
            self.probes.clear()
            fail(self.breaker, self.circuit.open_after - 1, self.now)
            assert self.breaker.allows(self.now)

    @invariant()
    def it_is_never_open_for_longer_than_the_cooldown(self) -> None:
        assert self.breaker.remaining(self.now) <= self.circuit.cooldown

    def teardown(self) -> None:
        """Whatever happened, and whoever never ends: it can always close again."""
        later = self.now + self.circuit.cooldown + PROBE_FORGOTTEN
        assert self.breaker.allows(later)
        self.breaker.succeeded(self.breaker.begin(later))
        assert self.breaker.state(later) == "closed"


Life.TestCase.settings = settings(stateful_step_count=30)
TestLife = Life.TestCase
