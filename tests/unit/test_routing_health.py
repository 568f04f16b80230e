"""Health: circuits and cooldowns of providers, models and keys."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from signalbox.config.fields import Secret, Url
from signalbox.config.rules import Circuit, Provider
from signalbox.routing.health import MODELS_LIMIT, PROBE_FORGOTTEN, HealthToken, ProviderHealth
from signalbox.routing.outcome import Outcome

GLM = "glm-4.7"
HERE = ("s-1", "")
NEVER = Circuit(open_after=10**6, degraded_after=10**6)


def provider(name: str, *keys: str | None, circuit: Circuit = NEVER) -> Provider:
    secrets = tuple(Secret(key) for key in keys)
    return Provider(name=name, url=Url("https", f"{name}.invalid", 443), keys=secrets, circuit=circuit)


ZAI = provider("zai", "zai-key-1", "zai-key-2", "zai-key-3")
KIMI = provider("kimi", "kimi-key")
LOCAL = provider("local")

OK = Outcome(label="200", kind="success", status=200)
BAD_KEY = Outcome(
    label="401", kind="auth", status=401, cooldown=60.0, scope="key", detail="authentication_error"
)
THROTTLED = Outcome(
    label="429", kind="throttle", status=429, cooldown=5.0, scope="key", detail="rate_limit_error"
)
SPENT = Outcome(label="429", kind="quota", status=429, cooldown=7200.0, scope="key", detail="weekly limit")
OVERLOADED = Outcome(
    label="529", kind="overload", status=529, cooldown=5.0, scope="model", detail="overloaded_error"
)
DOWN = Outcome(label="503", kind="overload", status=503, cooldown=30.0, scope="provider")
BROKEN = Outcome(label="500", kind="server", status=500)
NONSENSE = Outcome(label="400", kind="client", status=400)


def ask(
    health: ProviderHealth,
    asked: Provider,
    outcome: Outcome | None,
    now: float = 0.0,
    *,
    model: str | None = GLM,
    key: int | None = None,
) -> list[Any]:
    """One whole attempt in one moment; what it changed."""
    return health.end(health.begin(asked, model, key, now), outcome, now)


def well_keys(health: ProviderHealth, now: float) -> set[int | None]:
    return {health.pick_key(ZAI, (f"s-{i}", ""), now) for i in range(50)}


def test_unknown_provider_is_available():
    assert ProviderHealth().refusal(ZAI, GLM, 0) is None


# circuits


def test_failures_open_the_circuit_and_a_probe_closes_it():
    health, zai = ProviderHealth(), provider("zai", "zai-key", circuit=Circuit(2, 3, 60.0))
    told = [event for _ in range(3) for event in ask(health, zai, BROKEN, now=10)]
    assert told == [("circuit", "zai", "closed", "degraded"), ("circuit", "zai", "degraded", "open")]
    assert health.refusal(zai, GLM, 28) == ("circuit", "open for another 42 s")
    probe = health.begin(zai, GLM, 0, 70)
    assert health.refusal(zai, GLM, 71) == ("circuit", "half-open, being tried again")
    assert health.end(probe, OK, 72) == [("circuit", "zai", "half-open", "closed")]


@pytest.mark.parametrize("outcome", [None, NONSENSE, SPENT], ids=["abandoned", "client", "quota"])
def test_outcomes_that_are_not_the_providers_leave_the_circuit(outcome):
    health, zai = ProviderHealth(), provider("zai", "zai-key", circuit=Circuit(1, 2, 60.0))
    ask(health, zai, BROKEN)
    ask(health, zai, outcome)
    assert health.circuits(0) == {"zai": "degraded"}
    ask(health, zai, BROKEN)
    ask(health, zai, outcome, now=60)
    assert health.circuits(60) == {"zai": "half-open"}


def test_a_reloaded_circuit_keeps_what_happened():
    health = ProviderHealth()
    for _ in range(4):
        ask(health, provider("zai", circuit=Circuit(3, 5, 60.0)), BROKEN)
    ask(health, provider("zai", circuit=Circuit(10, 20, 60.0)), NONSENSE)
    assert health.circuits(0) == {"zai": "closed"}
    ask(health, provider("zai", circuit=Circuit(3, 5, 60.0)), BROKEN)
    assert health.circuits(0) == {"zai": "open"}


# cooldowns


@pytest.mark.parametrize(
    ("outcome", "others"),
    [(OVERLOADED, [(KIMI, "kimi-k2"), (ZAI, GLM)]), (DOWN, [(ZAI, GLM)]), (THROTTLED, [(ZAI, GLM)])],
    ids=["model", "provider", "only key"],
)
def test_only_what_an_outcome_blames_enters_cooldown(outcome, others):
    health = ProviderHealth()
    ask(health, KIMI, outcome)
    assert health.refusal(KIMI, GLM, 4) is not None
    assert [health.refusal(other, model, 4) for other, model in others] == [None] * len(others)
    assert health.refusal(KIMI, GLM, outcome.cooldown) is None


@pytest.mark.parametrize(
    ("outcomes", "ends"),
    [([BAD_KEY], True), ([THROTTLED], False), ([BAD_KEY, SPENT], False), ([SPENT, BAD_KEY], False)],
    ids=["refused", "throttled", "refused, then used up", "used up, then refused"],
)
def test_a_new_login_ends_the_cooldown_that_the_one_before_it_began(outcomes, ends):
    """A quota or a throttle is the account's, whatever its token."""
    health = ProviderHealth()
    for outcome in outcomes:
        ask(health, LOCAL, outcome)
    assert health.login_renewed(LOCAL) is ends
    assert (health.refusal(LOCAL, GLM, 1) is None) is ends


def test_cooldown_event_has_its_cause():
    health = ProviderHealth()
    told = [
        *ask(health, KIMI, OVERLOADED),
        *ask(health, ZAI, THROTTLED, key=1),
        *ask(health, LOCAL, DOWN),
    ]
    assert told == [
        ("cooldown", "kimi", "model glm-4.7", "for 5 s: overloaded_error"),
        ("cooldown", "zai", "key 2", "for 5 s: rate_limit_error"),
        ("cooldown", "local", "provider", "for 30 s: 503"),
    ]
    assert health.refusal(KIMI, GLM, 1.5) == ("cooldown", "in cooldown for another 4 s: overloaded_error")
    assert health.refusal(LOCAL, GLM, 5) == ("cooldown", "in cooldown for another 25 s: 503")


METERED = Outcome(
    label="429", kind="quota", status=429, cooldown=7200.0, scope="key", window="5h", detail="limit reached"
)


@pytest.mark.parametrize("asked", [LOCAL, KIMI], ids=["no key", "one key"])
def test_used_up_windows_of_a_single_key_are_left_to_quota(asked):
    health = ProviderHealth()
    assert ask(health, asked, METERED) == []
    assert health.refusal(asked, GLM, 1) is None


def test_used_up_windows_of_one_of_several_keys_start_its_cooldown():
    health = ProviderHealth()
    ask(health, ZAI, METERED, key=0)
    assert well_keys(health, 1) == {1, 2}
    for key in (1, 2):
        ask(health, ZAI, METERED, key=key)
    assert health.refusal(ZAI, GLM, 1) == ("quota:5h", "in cooldown for another 120 min: limit reached")


def test_used_up_quota_has_its_own_reason():
    health = ProviderHealth()
    assert ask(health, LOCAL, SPENT) == [("cooldown", "local", "key", "for 2 h: weekly limit")]
    assert health.refusal(LOCAL, None, 60) == ("quota", "in cooldown for another 119 min: weekly limit")


def test_outcome_without_rest_or_scope_starts_no_cooldown():
    health = ProviderHealth()
    for outcome in (BROKEN, Outcome(label="429", kind="request", status=429, cooldown=5.0, scope="none")):
        assert ask(health, KIMI, outcome) == []
    assert health.refusal(KIMI, GLM, 0) is None


@pytest.mark.parametrize("outcomes", [(SPENT, THROTTLED), (THROTTLED, SPENT), (OVERLOADED, DOWN, SPENT)])
def test_longest_of_several_cooldowns_holds(outcomes):
    health = ProviderHealth()
    for outcome in outcomes:
        ask(health, KIMI, outcome)
    assert health.refusal(KIMI, GLM, 1) == ("quota", "in cooldown for another 120 min: weekly limit")


def test_prolonged_cooldown_is_reported_once():
    health = ProviderHealth()
    assert [len(ask(health, KIMI, THROTTLED, now=now)) for now in (0, 1, 2, 7)] == [1, 0, 0, 1]


def test_success_ends_only_the_cooldowns_of_what_succeeded():
    health = ProviderHealth()
    ask(health, ZAI, OVERLOADED)
    ask(health, ZAI, OVERLOADED, model="glm-5")
    ask(health, ZAI, BAD_KEY, key=0)
    ask(health, ZAI, BAD_KEY, key=1)
    assert ask(health, ZAI, OK, now=1, key=1) == [
        ("recovered", "zai", "model glm-4.7", ""),
        ("recovered", "zai", "key 2", ""),
    ]
    assert well_keys(health, 1) == {1, 2}
    assert health.refusal(ZAI, GLM, 1) is None
    assert health.refusal(ZAI, "glm-5", 1) is not None


def test_success_of_an_earlier_attempt_does_not_end_a_cooldown():
    health = ProviderHealth()
    early = [health.begin(KIMI, GLM, 0, 0)]
    ask(health, KIMI, THROTTLED)
    early.append(health.begin(KIMI, GLM, 0, 0))
    ask(health, KIMI, OK)
    ask(health, KIMI, THROTTLED)
    assert [health.end(attempt, OK, 1) for attempt in early] == [[], []]
    assert health.refusal(KIMI, GLM, 1) is not None


# probes


def test_one_probe_is_sent_when_a_cooldown_is_over():
    health = ProviderHealth()
    ask(health, KIMI, OVERLOADED)
    sent = []
    for _ in range(50):
        assert health.refusal(KIMI, GLM, 4.9) is not None
        if health.refusal(KIMI, GLM, 5) is None:
            sent.append(health.begin(KIMI, GLM, 0, 5))
    assert len(sent) == 1
    assert health.refusal(KIMI, GLM, 6) == ("cooldown", "being tried again: overloaded_error")
    health.end(sent[0], OK, 7)
    assert health.refusal(KIMI, GLM, 7) is None
    health.begin(KIMI, GLM, 0, 7)
    assert health.refusal(KIMI, GLM, 7) is None


def test_answer_that_begins_ends_the_cooldown_but_not_the_circuit():
    health, kimi = ProviderHealth(), provider("kimi", "kimi-key", circuit=Circuit(1, 2, 60.0))
    ask(health, kimi, OVERLOADED)
    probe = health.begin(kimi, GLM, 0, 5)
    assert health.answer_began(probe) == [("recovered", "kimi", "model glm-4.7", "")]
    assert health.answer_began(probe) == []
    assert (health.refusal(kimi, GLM, 5), health.circuits(5)) == (None, {"kimi": "degraded"})
    assert health.end(probe, OK, 300) == [("circuit", "kimi", "degraded", "closed")]


def test_circuit_probe_keeps_its_slot_until_its_answer_ends():
    health, kimi = ProviderHealth(), provider("kimi", "kimi-key", circuit=Circuit(1, 1, 60.0))
    ask(health, kimi, BROKEN)
    probe = health.begin(kimi, GLM, 0, 60)
    health.answer_began(probe)
    assert health.refusal(kimi, GLM, 61) == ("circuit", "half-open, being tried again")
    assert health.end(probe, BROKEN, 62) == [("circuit", "kimi", "half-open", "open")]


@pytest.mark.parametrize(
    ("outcome", "refused"), [(None, False), (NONSENSE, False), (BROKEN, False), (OVERLOADED, True)]
)
def test_failed_probe_frees_its_slot_or_starts_a_cooldown(outcome, refused):
    health = ProviderHealth()
    ask(health, KIMI, OVERLOADED)
    probe = health.begin(KIMI, GLM, 0, 5)
    events = health.end(probe, outcome, 6)
    assert bool(events) == refused
    assert (health.refusal(KIMI, GLM, 6) is not None) == refused
    health.begin(KIMI, GLM, 0, 11)
    assert health.refusal(KIMI, GLM, 11) is not None


def test_probe_that_never_ends_is_forgotten():
    health = ProviderHealth()
    ask(health, KIMI, OVERLOADED)
    health.begin(KIMI, GLM, 0, 5)
    assert health.refusal(KIMI, GLM, 64) is not None
    assert health.refusal(KIMI, GLM, 65) is None


def test_abandoning_a_judged_attempt_changes_nothing():
    health = ProviderHealth()
    attempt = health.begin(KIMI, GLM, 0, 0)
    health.end(attempt, OVERLOADED, 1)
    assert health.end(attempt, None, 2) == []
    assert health.refusal(KIMI, GLM, 2) is not None


# keys


def test_conversation_keeps_its_key_and_many_spread():
    health = ProviderHealth()
    picked = [health.pick_key(ZAI, (f"s-{i}", ""), 0) for i in range(300)]
    assert picked == [health.pick_key(ZAI, (f"s-{i}", ""), 50) for i in range(300)]
    assert min(Counter(picked)[key] for key in range(3)) > 60


@given(st.integers(0, 2), st.text(max_size=5), st.text(max_size=5))
def test_key_in_cooldown_moves_only_its_own_conversations_for_that_time(bad, session, agent):
    health = ProviderHealth()
    before = health.pick_key(ZAI, (session, agent), 0)
    ask(health, ZAI, BAD_KEY, key=bad)
    meanwhile = health.pick_key(ZAI, (session, agent), 30)
    assert meanwhile == before if before != bad else meanwhile not in (bad, None)
    assert health.pick_key(ZAI, (session, agent), 60) == before


def test_provider_is_refused_while_all_keys_are_in_cooldown():
    health = ProviderHealth()
    for key, outcome in enumerate((SPENT, THROTTLED, BAD_KEY)):
        assert health.refusal(ZAI, GLM, 0) is None
        ask(health, ZAI, outcome, key=key)
    assert health.pick_key(ZAI, HERE, 0) is None
    assert health.refusal(ZAI, GLM, 0) == ("cooldown", "in cooldown for another 5 s: rate_limit_error")
    assert health.pick_key(ZAI, HERE, 5) == 1
    assert health.refusal(ZAI, GLM, 5) is None


def test_only_keys_with_a_value_count():
    health, half = ProviderHealth(), provider("half", None, "half-key", "")
    assert health.pick_key(half, None, 0) == health.pick_key(half, HERE, 0) == 1
    ask(health, half, BAD_KEY, key=1)
    assert health.pick_key(half, None, 0) is None
    assert health.refusal(half, GLM, 0) is not None


@pytest.mark.parametrize("asked", [KIMI, LOCAL], ids=["one key", "no key"])
def test_one_key_or_none_has_a_cooldown_like_one_of_many(asked):
    health = ProviderHealth()
    key = health.pick_key(asked, HERE, 0)
    assert key == (0 if asked.keys else None)
    ask(health, asked, THROTTLED, key=key)
    assert health.pick_key(asked, HERE, 0) is None
    assert health.refusal(asked, GLM, 0) == ("cooldown", "in cooldown for another 5 s: rate_limit_error")
    assert health.refusal(asked, GLM, 5) is None


def test_first_key_is_used_without_a_conversation():
    health = ProviderHealth()
    assert health.pick_key(ZAI, None, 0) == 0
    assert ask(health, ZAI, BAD_KEY) == [("cooldown", "zai", "key 1", "for 60 s: authentication_error")]
    assert health.pick_key(ZAI, None, 0) == 1


def test_replaced_key_has_no_cooldown():
    health = ProviderHealth()
    ask(health, KIMI, BAD_KEY, key=0)
    assert health.refusal(provider("kimi", "kimi-key-new"), GLM, 0) is None


def test_no_key_appears_in_events_or_reprs():
    health = ProviderHealth()
    told = [ask(health, ZAI, BAD_KEY, key=1), health.refusal(ZAI, GLM, 0), health.begin(ZAI, GLM, 1, 0)]
    assert "zai-key" not in repr(told)


# memory


def test_removed_providers_and_keys_are_forgotten():
    health = ProviderHealth()
    for asked, outcome in ((ZAI, BAD_KEY), (ZAI, OVERLOADED), (KIMI, BAD_KEY), (KIMI, DOWN)):
        ask(health, asked, outcome, key=0)
    health.forget({"kimi": provider("kimi", "kimi-key-new")})
    assert health.circuits(0) == {"kimi": "closed"}
    assert [block.scope for block in health.blocks(0)] == ["provider"]
    health.forget({"kimi": KIMI, "zai": ZAI})
    assert health.refusal(ZAI, GLM, 0) is None


def test_oldest_model_cooldown_is_forgotten_but_no_key():
    health = ProviderHealth()
    ask(health, ZAI, BAD_KEY, key=0)
    models = [f"m-{i}" for i in range(MODELS_LIMIT)]
    for model in [*models, "m-0", "one-more"]:
        ask(health, ZAI, OVERLOADED, model=model)
    rested = [health.refusal(ZAI, model, 0) is not None for model in ("m-0", "m-1", "m-2", "one-more")]
    assert rested == [True, False, True, True]
    assert well_keys(health, 0) == {1, 2}


OUTCOMES = st.builds(
    Outcome,
    label=st.just("429"),
    kind=st.sampled_from(["auth", "quota", "throttle", "request", "overload", "server", "connect", "client"]),
    status=st.just(429),
    cooldown=st.none() | st.sampled_from([0.0, 0.5, 5.0, 60.0, 1000.0]),
    scope=st.sampled_from(["key", "model", "provider", "none"]),
)


class Herd(RuleBasedStateMachine):
    """Requests begin and end in any order, at any time, with any outcome; some are sent though refused."""

    running = Bundle("running")
    providers = (provider("zai", "zai-key-1", "zai-key-2", circuit=Circuit(2, 4, 60.0)), KIMI, LOCAL)

    @initialize()
    def begin_to_live(self) -> None:
        self.now = 1000.0
        self.health = ProviderHealth()
        self.said: dict[tuple[str, str], float] = {}
        """Until when outcomes asked for a cooldown, by provider and scope."""
        self.probes: list[tuple[float, HealthToken]] = []

    @rule(seconds=st.sampled_from([0.5, 5.0, PROBE_FORGOTTEN, 1000.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(
        target=running,
        asked=st.sampled_from(providers),
        model=st.sampled_from([GLM, "glm-5", None]),
        conversation=st.sampled_from([None, HERE, ("s-2", "")]),
    )
    def a_request_is_sent(self, asked: Provider, model: str | None, conversation: Any) -> HealthToken:
        refusal = self.health.refusal(asked, model, self.now)
        key = self.health.pick_key(asked, conversation, self.now)
        if refusal is None:
            assert (key is not None) == bool(asked.keys), "who is not refused has a key to use"
        attempt = self.health.begin(asked, model, key, self.now)
        if refusal is None:
            met = [
                cooldown
                for began, probe in self.probes
                if self.now - began < PROBE_FORGOTTEN
                for cooldown in probe.cooldowns
            ]
            assert not set(map(id, met)) & set(map(id, attempt.cooldowns)), "one probe at once"
            self.probes.append((self.now, attempt))
        return attempt

    @rule(attempt=running)
    def its_answer_begins(self, attempt: HealthToken) -> None:
        """Any number of times, and for some that are over too late to matter."""
        circuits = self.health.circuits(self.now)
        self.health.answer_began(attempt)
        assert self.health.circuits(self.now) == circuits, "what may still break off says nothing"

    @rule(attempt=consumes(running), outcome=st.none() | st.just(OK) | OUTCOMES)
    def it_ends(self, attempt: HealthToken, outcome: Outcome | None) -> None:
        self.health.end(attempt, outcome, self.now)
        self.probes = [(began, probe) for began, probe in self.probes if probe is not attempt]
        if outcome is not None and outcome.cooldown:
            place = attempt.provider.name, outcome.scope
            self.said[place] = max(self.said.get(place, 0.0), self.now + outcome.cooldown)

    @invariant()
    def no_cooldown_is_longer_than_an_outcome_said(self) -> None:
        for block in self.health.blocks(self.now):
            assert block.scope == "circuit" or self.said[block.provider, block.scope] > self.now

    def teardown(self) -> None:
        """After enough time every provider is available again, whatever happened."""
        later = max([self.now, *self.said.values()]) + 60.0 + PROBE_FORGOTTEN
        for asked in self.providers:
            for model in (GLM, "glm-5", None):
                assert self.health.refusal(asked, model, later) is None


Herd.TestCase.settings = settings(stateful_step_count=30)
TestHerd = Herd.TestCase


# what routers on many machines tell each other


def shared(teller: ProviderHealth, *hearers: ProviderHealth, provider: Provider, now: float) -> list[Any]:
    return [hearer.merge(block, provider, now) for block in teller.blocks(now) for hearer in hearers]


def test_a_cooldown_that_another_router_told_of_is_kept_and_its_probe_ends_it():
    here, there = ProviderHealth(), ProviderHealth()
    ask(there, ZAI, THROTTLED, key=1)
    assert shared(there, here, provider=ZAI, now=1) == [
        [("cooldown", "zai", "key 2", "for 4 s: rate_limit_error")]
    ]
    assert well_keys(here, 1) == {0, 2}
    assert shared(there, here, provider=ZAI, now=2) == [[]], "it is told once"
    ask(here, ZAI, OK, 5.0, key=1)
    assert here.blocks(5) == []
    assert well_keys(here, 5) == {0, 1, 2}


def test_a_circuit_that_opened_elsewhere_is_open_here_and_closes_where_that_does():
    quick = provider("kimi", "kimi-key", circuit=Circuit(open_after=1, cooldown=60.0))
    here, there = ProviderHealth(), ProviderHealth()
    ask(there, quick, BROKEN)
    (block,) = there.blocks(1)
    assert here.merge(block, quick, 1) == [("circuit", "kimi", "closed", "open")]
    assert here.refusal(quick, GLM, 1) == ("circuit", "open for another 59 s")
    assert here.merge(block._replace(until=0.0), quick, 2) == [("circuit", "kimi", "open", "closed")]
    assert here.refusal(quick, GLM, 2) is None


def test_what_recovered_elsewhere_is_asked_again_here():
    here = ProviderHealth()
    ask(here, KIMI, OVERLOADED)
    (block,) = here.blocks(1)
    over = block._replace(until=0.0)
    assert here.merge(over, KIMI, 1) == [("recovered", "kimi", "model glm-4.7", "")]
    assert here.refusal(KIMI, GLM, 1) is None
    assert here.merge(over, KIMI, 1) == []
