"""Who may be asked now: circuits and rests of providers, models and keys."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from signalbox.config.rules import Circuit, Provider, Secret, Url
from signalbox.routing.circuit import TRIAL_FORGOTTEN
from signalbox.routing.outcome import Outcome
from signalbox.routing.standing import MODELS_LIMIT, Attempt, Standing

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
BAD_KEY = Outcome(label="401", kind="auth", status=401, rest=60.0, scope="key", detail="authentication_error")
THROTTLED = Outcome(
    label="429", kind="throttle", status=429, rest=5.0, scope="key", detail="rate_limit_error"
)
SPENT = Outcome(label="429", kind="quota", status=429, rest=7200.0, scope="key", detail="weekly limit")
OVERLOADED = Outcome(
    label="529", kind="overload", status=529, rest=5.0, scope="model", detail="overloaded_error"
)
DOWN = Outcome(label="503", kind="overload", status=503, rest=30.0, scope="provider")
BROKEN = Outcome(label="500", kind="server", status=500)
NONSENSE = Outcome(label="400", kind="client", status=400)


def ask(
    standing: Standing,
    asked: Provider,
    outcome: Outcome | None,
    now: float = 0.0,
    *,
    model: str | None = GLM,
    key: int | None = None,
) -> list[Any]:
    """One whole attempt in one moment; what it changed."""
    return standing.end(standing.begin(asked, model, key, now), outcome, now)


def well_keys(standing: Standing, now: float) -> set[int | None]:
    return {standing.pick_key(ZAI, (f"s-{i}", ""), now) for i in range(50)}


def test_who_was_never_asked_may_be():
    assert Standing().refusal(ZAI, GLM, 0) is None


# circuits


def test_failures_open_the_circuit_a_trial_closes_it_and_every_change_is_told():
    standing, zai = Standing(), provider("zai", "zai-key", circuit=Circuit(2, 3, 60.0))
    told = [event for _ in range(3) for event in ask(standing, zai, BROKEN, now=10)]
    assert told == [("circuit", "zai", "closed", "degraded"), ("circuit", "zai", "degraded", "open")]
    assert standing.refusal(zai, GLM, 28) == ("circuit", "open for another 42 s")
    trial = standing.begin(zai, GLM, 0, 70)
    assert standing.refusal(zai, GLM, 71) == ("circuit", "half-open, being tried again")
    assert standing.end(trial, OK, 72) == [("circuit", "zai", "half-open", "closed")]


@pytest.mark.parametrize("outcome", [None, NONSENSE, SPENT], ids=["abandoned", "client", "quota"])
def test_what_is_neither_success_nor_failure_leaves_the_circuit(outcome):
    standing, zai = Standing(), provider("zai", "zai-key", circuit=Circuit(1, 2, 60.0))
    ask(standing, zai, BROKEN)
    ask(standing, zai, outcome)
    assert standing.circuits(0) == {"zai": "degraded"}
    ask(standing, zai, BROKEN)
    ask(standing, zai, outcome, now=60)
    assert standing.circuits(60) == {"zai": "half-open"}


def test_a_reloaded_circuit_keeps_what_happened():
    standing = Standing()
    for _ in range(4):
        ask(standing, provider("zai", circuit=Circuit(3, 5, 60.0)), BROKEN)
    ask(standing, provider("zai", circuit=Circuit(10, 20, 60.0)), NONSENSE)
    assert standing.circuits(0) == {"zai": "closed"}
    ask(standing, provider("zai", circuit=Circuit(3, 5, 60.0)), BROKEN)
    assert standing.circuits(0) == {"zai": "open"}


# rests


@pytest.mark.parametrize(
    ("outcome", "others"),
    [(OVERLOADED, [(KIMI, "kimi-k2"), (ZAI, GLM)]), (DOWN, [(ZAI, GLM)]), (THROTTLED, [(ZAI, GLM)])],
    ids=["model", "provider", "only key"],
)
def test_only_what_an_outcome_blames_rests(outcome, others):
    standing = Standing()
    ask(standing, KIMI, outcome)
    assert standing.refusal(KIMI, GLM, 4) is not None
    assert [standing.refusal(other, model, 4) for other, model in others] == [None] * len(others)
    assert standing.refusal(KIMI, GLM, outcome.rest) is None


def test_a_rest_is_told_with_its_cause():
    standing = Standing()
    told = [
        *ask(standing, KIMI, OVERLOADED),
        *ask(standing, ZAI, THROTTLED, key=1),
        *ask(standing, LOCAL, DOWN),
    ]
    assert told == [
        ("cooldown", "kimi", "model glm-4.7", "for 5 s: overloaded_error"),
        ("cooldown", "zai", "key 2", "for 5 s: rate_limit_error"),
        ("cooldown", "local", "provider", "for 30 s: 503"),
    ]
    assert standing.refusal(KIMI, GLM, 1.5) == ("cooldown", "in cooldown for another 4 s: overloaded_error")
    assert standing.resting(5) == [("local", "provider", "in cooldown for another 25 s: 503")]


METERED = Outcome(
    label="429", kind="quota", status=429, rest=7200.0, scope="key", window="5h", detail="limit reached"
)


@pytest.mark.parametrize("asked", [LOCAL, KIMI], ids=["no key", "one key"])
def test_windows_that_are_used_up_are_left_to_those_who_know_the_account(asked):
    standing = Standing()
    assert ask(standing, asked, METERED) == []
    assert standing.refusal(asked, GLM, 1) is None


def test_of_several_keys_the_one_whose_windows_are_used_up_rests():
    standing = Standing()
    ask(standing, ZAI, METERED, key=0)
    assert well_keys(standing, 1) == {1, 2}
    for key in (1, 2):
        ask(standing, ZAI, METERED, key=key)
    assert standing.refusal(ZAI, GLM, 1) == ("quota:5h", "in cooldown for another 120 min: limit reached")


def test_spent_quota_has_a_reason_of_its_own():
    standing = Standing()
    assert ask(standing, LOCAL, SPENT) == [("cooldown", "local", "key", "for 2 h: weekly limit")]
    assert standing.refusal(LOCAL, None, 60) == ("quota", "in cooldown for another 119 min: weekly limit")


def test_an_outcome_without_rest_or_scope_lays_nothing_to_rest():
    standing = Standing()
    for outcome in (BROKEN, Outcome(label="429", kind="request", status=429, rest=5.0, scope="none")):
        assert ask(standing, KIMI, outcome) == []
    assert standing.refusal(KIMI, GLM, 0) is None


@pytest.mark.parametrize("outcomes", [(SPENT, THROTTLED), (THROTTLED, SPENT), (OVERLOADED, DOWN, SPENT)])
def test_of_several_rests_the_longest_holds(outcomes):
    standing = Standing()
    for outcome in outcomes:
        ask(standing, KIMI, outcome)
    assert standing.refusal(KIMI, GLM, 1) == ("quota", "in cooldown for another 120 min: weekly limit")


def test_a_rest_that_is_prolonged_while_it_runs_is_told_once():
    standing = Standing()
    assert [len(ask(standing, KIMI, THROTTLED, now=now)) for now in (0, 1, 2, 7)] == [1, 0, 0, 1]


def test_a_success_ends_the_rests_of_what_succeeded_and_no_others():
    standing = Standing()
    ask(standing, ZAI, OVERLOADED)
    ask(standing, ZAI, OVERLOADED, model="glm-5")
    ask(standing, ZAI, BAD_KEY, key=0)
    ask(standing, ZAI, BAD_KEY, key=1)
    assert ask(standing, ZAI, OK, now=1, key=1) == [
        ("recovered", "zai", "model glm-4.7", ""),
        ("recovered", "zai", "key 2", ""),
    ]
    assert well_keys(standing, 1) == {1, 2}
    assert standing.refusal(ZAI, GLM, 1) is None
    assert standing.refusal(ZAI, "glm-5", 1) is not None


def test_a_success_of_an_attempt_from_before_the_rest_does_not_end_it():
    standing = Standing()
    early = [standing.begin(KIMI, GLM, 0, 0)]
    ask(standing, KIMI, THROTTLED)
    early.append(standing.begin(KIMI, GLM, 0, 0))
    ask(standing, KIMI, OK)
    ask(standing, KIMI, THROTTLED)
    assert [standing.end(attempt, OK, 1) for attempt in early] == [[], []]
    assert standing.refusal(KIMI, GLM, 1) is not None


# one trial


def test_a_herd_is_spared_the_failure_and_sends_one_trial_when_the_rest_is_over():
    standing = Standing()
    ask(standing, KIMI, OVERLOADED)
    sent = []
    for _ in range(50):
        assert standing.refusal(KIMI, GLM, 4.9) is not None
        if standing.refusal(KIMI, GLM, 5) is None:
            sent.append(standing.begin(KIMI, GLM, 0, 5))
    assert len(sent) == 1
    assert standing.refusal(KIMI, GLM, 6) == ("cooldown", "being tried again: overloaded_error")
    standing.end(sent[0], OK, 7)
    assert standing.refusal(KIMI, GLM, 7) is None
    standing.begin(KIMI, GLM, 0, 7)
    assert standing.refusal(KIMI, GLM, 7) is None


def test_an_answer_that_begins_frees_the_model_and_leaves_the_circuit_to_its_end():
    standing, kimi = Standing(), provider("kimi", "kimi-key", circuit=Circuit(1, 2, 60.0))
    ask(standing, kimi, OVERLOADED)
    trial = standing.begin(kimi, GLM, 0, 5)
    assert standing.began(trial) == [("recovered", "kimi", "model glm-4.7", "")]
    assert standing.began(trial) == []
    assert (standing.refusal(kimi, GLM, 5), standing.circuits(5)) == (None, {"kimi": "degraded"})
    assert standing.end(trial, OK, 300) == [("circuit", "kimi", "degraded", "closed")]


def test_a_trial_of_an_open_circuit_keeps_its_place_until_its_answer_ends():
    standing, kimi = Standing(), provider("kimi", "kimi-key", circuit=Circuit(1, 1, 60.0))
    ask(standing, kimi, BROKEN)
    trial = standing.begin(kimi, GLM, 0, 60)
    standing.began(trial)
    assert standing.refusal(kimi, GLM, 61) == ("circuit", "half-open, being tried again")
    assert standing.end(trial, BROKEN, 62) == [("circuit", "kimi", "half-open", "open")]


@pytest.mark.parametrize(
    ("outcome", "refused"), [(None, False), (NONSENSE, False), (BROKEN, False), (OVERLOADED, True)]
)
def test_a_trial_that_does_not_succeed_leaves_its_place_to_the_next_or_starts_a_rest(outcome, refused):
    standing = Standing()
    ask(standing, KIMI, OVERLOADED)
    trial = standing.begin(KIMI, GLM, 0, 5)
    events = standing.end(trial, outcome, 6)
    assert bool(events) == refused
    assert (standing.refusal(KIMI, GLM, 6) is not None) == refused
    standing.begin(KIMI, GLM, 0, 11)
    assert standing.refusal(KIMI, GLM, 11) is not None


def test_a_trial_that_never_ends_is_forgotten():
    standing = Standing()
    ask(standing, KIMI, OVERLOADED)
    standing.begin(KIMI, GLM, 0, 5)
    assert standing.refusal(KIMI, GLM, 64) is not None
    assert standing.refusal(KIMI, GLM, 65) is None


def test_to_abandon_what_was_judged_changes_nothing():
    standing = Standing()
    attempt = standing.begin(KIMI, GLM, 0, 0)
    standing.end(attempt, OVERLOADED, 1)
    assert standing.end(attempt, None, 2) == []
    assert standing.refusal(KIMI, GLM, 2) is not None


# keys


def test_a_conversation_keeps_its_key_and_many_spread():
    standing = Standing()
    picked = [standing.pick_key(ZAI, (f"s-{i}", ""), 0) for i in range(300)]
    assert picked == [standing.pick_key(ZAI, (f"s-{i}", ""), 50) for i in range(300)]
    assert min(Counter(picked)[key] for key in range(3)) > 60


@given(st.integers(0, 2), st.text(max_size=5), st.text(max_size=5))
def test_a_resting_key_moves_only_its_own_conversations_and_only_for_its_rest(bad, session, agent):
    standing = Standing()
    before = standing.pick_key(ZAI, (session, agent), 0)
    ask(standing, ZAI, BAD_KEY, key=bad)
    meanwhile = standing.pick_key(ZAI, (session, agent), 30)
    assert meanwhile == before if before != bad else meanwhile not in (bad, None)
    assert standing.pick_key(ZAI, (session, agent), 60) == before


def test_when_all_keys_rest_the_provider_is_refused_until_the_first_returns():
    standing = Standing()
    for key, outcome in enumerate((SPENT, THROTTLED, BAD_KEY)):
        assert standing.refusal(ZAI, GLM, 0) is None
        ask(standing, ZAI, outcome, key=key)
    assert standing.pick_key(ZAI, HERE, 0) is None
    assert standing.refusal(ZAI, GLM, 0) == ("cooldown", "in cooldown for another 5 s: rate_limit_error")
    assert standing.pick_key(ZAI, HERE, 5) == 1
    assert standing.refusal(ZAI, GLM, 5) is None


def test_only_keys_with_a_value_count():
    standing, half = Standing(), provider("half", None, "half-key", "")
    assert standing.pick_key(half, None, 0) == standing.pick_key(half, HERE, 0) == 1
    ask(standing, half, BAD_KEY, key=1)
    assert standing.pick_key(half, None, 0) is None
    assert standing.refusal(half, GLM, 0) is not None


@pytest.mark.parametrize("asked", [KIMI, LOCAL], ids=["one key", "no key"])
def test_one_key_or_none_rests_like_one_of_many(asked):
    standing = Standing()
    key = standing.pick_key(asked, HERE, 0)
    assert key == (0 if asked.keys else None)
    ask(standing, asked, THROTTLED, key=key)
    assert standing.pick_key(asked, HERE, 0) is None
    assert standing.refusal(asked, GLM, 0) == ("cooldown", "in cooldown for another 5 s: rate_limit_error")
    assert standing.refusal(asked, GLM, 5) is None


def test_without_a_conversation_or_a_named_key_it_is_the_first():
    standing = Standing()
    assert standing.pick_key(ZAI, None, 0) == 0
    assert ask(standing, ZAI, BAD_KEY) == [("cooldown", "zai", "key 1", "for 60 s: authentication_error")]
    assert standing.pick_key(ZAI, None, 0) == 1


def test_a_key_that_was_replaced_is_well():
    standing = Standing()
    ask(standing, KIMI, BAD_KEY, key=0)
    assert standing.refusal(provider("kimi", "kimi-key-new"), GLM, 0) is None


def test_no_key_is_ever_told():
    standing = Standing()
    told = [ask(standing, ZAI, BAD_KEY, key=1), standing.resting(0), standing.begin(ZAI, GLM, 1, 0)]
    assert "zai-key" not in repr(told)


# memory


def test_what_is_not_in_the_rules_any_more_is_forgotten():
    standing = Standing()
    for asked, outcome in ((ZAI, BAD_KEY), (ZAI, OVERLOADED), (KIMI, BAD_KEY), (KIMI, DOWN)):
        ask(standing, asked, outcome, key=0)
    standing.forget({"kimi": provider("kimi", "kimi-key-new")})
    assert standing.circuits(0) == {"kimi": "closed"}
    assert [what for _, what, _ in standing.resting(0)] == ["provider"]
    standing.forget({"kimi": KIMI, "zai": ZAI})
    assert standing.refusal(ZAI, GLM, 0) is None


def test_the_model_at_rest_for_longest_is_forgotten_and_no_key():
    standing = Standing()
    ask(standing, ZAI, BAD_KEY, key=0)
    models = [f"m-{i}" for i in range(MODELS_LIMIT)]
    for model in [*models, "m-0", "one-more"]:
        ask(standing, ZAI, OVERLOADED, model=model)
    rested = [standing.refusal(ZAI, model, 0) is not None for model in ("m-0", "m-1", "m-2", "one-more")]
    assert rested == [True, False, True, True]
    assert well_keys(standing, 0) == {1, 2}


OUTCOMES = st.builds(
    Outcome,
    label=st.just("429"),
    kind=st.sampled_from(["auth", "quota", "throttle", "request", "overload", "server", "connect", "client"]),
    status=st.just(429),
    rest=st.none() | st.sampled_from([0.0, 0.5, 5.0, 60.0, 1000.0]),
    scope=st.sampled_from(["key", "model", "provider", "none"]),
)


class Herd(RuleBasedStateMachine):
    """Requests begin and end in any order, at any time, with any outcome; some are sent though refused."""

    running = Bundle("running")
    providers = (provider("zai", "zai-key-1", "zai-key-2", circuit=Circuit(2, 4, 60.0)), KIMI, LOCAL)

    @initialize()
    def begin_to_live(self) -> None:
        self.now = 1000.0
        self.standing = Standing()
        self.said: dict[tuple[str, str], float] = {}
        """Until when outcomes said that this should rest, by provider and scope."""
        self.trials: list[tuple[float, Attempt]] = []

    @rule(seconds=st.sampled_from([0.5, 5.0, TRIAL_FORGOTTEN, 1000.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(
        target=running,
        asked=st.sampled_from(providers),
        model=st.sampled_from([GLM, "glm-5", None]),
        conversation=st.sampled_from([None, HERE, ("s-2", "")]),
    )
    def a_request_is_sent(self, asked: Provider, model: str | None, conversation: Any) -> Attempt:
        refusal = self.standing.refusal(asked, model, self.now)
        key = self.standing.pick_key(asked, conversation, self.now)
        if refusal is None:
            assert (key is not None) == bool(asked.keys), "who is not refused has a key to use"
        attempt = self.standing.begin(asked, model, key, self.now)
        if refusal is None:
            met = [
                rest
                for began, trial in self.trials
                if self.now - began < TRIAL_FORGOTTEN
                for rest in trial.met
            ]
            assert not set(map(id, met)) & set(map(id, attempt.met)), "one trial at once"
            self.trials.append((self.now, attempt))
        return attempt

    @rule(attempt=running)
    def its_answer_begins(self, attempt: Attempt) -> None:
        """Any number of times, and for some that are over too late to matter."""
        circuits = self.standing.circuits(self.now)
        self.standing.began(attempt)
        assert self.standing.circuits(self.now) == circuits, "what may still break off says nothing"

    @rule(attempt=consumes(running), outcome=st.none() | st.just(OK) | OUTCOMES)
    def it_ends(self, attempt: Attempt, outcome: Outcome | None) -> None:
        self.standing.end(attempt, outcome, self.now)
        self.trials = [(began, trial) for began, trial in self.trials if trial is not attempt]
        if outcome is not None and outcome.rest:
            place = attempt.provider.name, outcome.scope
            self.said[place] = max(self.said.get(place, 0.0), self.now + outcome.rest)

    @invariant()
    def no_rest_is_longer_than_an_outcome_said(self) -> None:
        for name, what, _ in self.standing.resting(self.now):
            assert self.said[name, what.split()[0]] > self.now

    def teardown(self) -> None:
        """Whatever happened, and whoever never ends: after enough time everyone may be asked again."""
        later = max([self.now, *self.said.values()]) + 60.0 + TRIAL_FORGOTTEN
        for asked in self.providers:
            for model in (GLM, "glm-5", None):
                assert self.standing.refusal(asked, model, later) is None


Herd.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestHerd = Herd.TestCase
