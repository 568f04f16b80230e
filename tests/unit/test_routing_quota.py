"""Marks, hysteresis and spent windows: which accounts are skipped, and when they are used again."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from signalbox.config.fields import Secret, Url
from signalbox.config.rules import Failover, Match, Provider, Quota, Reject, Rule, Rules, Target
from signalbox.routing.quota import MOST, Meter, QuotaChange, Quotas, SharedWindow, following
from signalbox.routing.rate_limit_headers import UNNAMED, RateLimitHeaders

NOW = 1795176000.0
HOUR = 3600.0
MARKS = Quota(redirect_at={"5h": 90, "7d": 90, "overage": 80})
WATCHED = Quota()
OPUS, SONNET = "claude-opus-4-5", "claude-sonnet-4-5"
REJECTED = "rejected"


def told(
    percent: dict[str, float] | None = None, overall: str = "", in_use: bool = False, **status: str
) -> RateLimitHeaders:
    """An answer by which all windows it names reset in an hour; `w5h` names the window `5h`."""
    statuses = {name.removeprefix("w"): value for name, value in status.items()}
    percents = percent or {}
    resets = dict.fromkeys({*percents, *statuses}, NOW + HOUR)
    return RateLimitHeaders(statuses, percents, resets, overall, overage_in_use=in_use)


def meter(
    *answers: RateLimitHeaders, policy: Quota = MARKS, now: float = NOW, refused: str | None = None
) -> Meter:
    found = Meter()
    for answer in answers:
        found.observe(answer, now, refused)
        found.settle(policy, now)
    return found


def reason(found: Meter, policy: Quota = MARKS, model: str | None = SONNET, now: float = NOW) -> str:
    refusal = found.refusal(policy, model, now)
    return refusal[0] if refusal else ""


# marks


@pytest.mark.parametrize(
    ("percent", "expected"),
    [
        ({}, ""),
        ({"5h": 89.999}, ""),
        ({"5h": 90.0}, "quota:5h"),
        ({"5h": 101.0}, "quota:5h"),
        ({"7d": 90.0, "5h": 10.0}, "quota:7d"),
        ({"overage": 80.0}, "quota:overage"),
        ({"7d_opus": 100.0, "30d": 100.0}, ""),
    ],
)
def test_a_window_that_reaches_its_mark_passes_the_provider_over(percent, expected):
    assert reason(meter(told(percent))) == expected


def test_without_marks_a_provider_is_watched_only():
    answer = told({"5h": 101.0}, w5h=REJECTED, w7d_opus=REJECTED)
    assert reason(meter(answer, policy=WATCHED), WATCHED, OPUS) == ""


def test_a_mark_on_one_family_binds_that_family():
    policy = Quota(redirect_at={"7d_opus": 50})
    found = meter(told({"7d_opus": 60.0}), policy=policy)
    assert (reason(found, policy, OPUS), reason(found, policy, SONNET)) == ("quota:7d_opus", "")


@pytest.mark.parametrize(
    ("percents", "expected"),
    [
        ([91, 86], "quota:5h"),
        ([91, 85], "quota:5h"),
        ([91, 84.9], ""),
        ([91, 84, 89], ""),
        ([91, 84, 90], "quota:5h"),
        ([89, 86], ""),
    ],
)
def test_it_comes_back_strictly_below_its_mark_less_the_hysteresis(percents, expected):
    assert reason(meter(*(told({"5h": float(percent)}) for percent in percents))) == expected


def test_it_comes_back_when_all_windows_are_that_low():
    found = meter(told({"5h": 91.0, "7d": 87.0}), told({"5h": 10.0}))
    assert found.refusal(MARKS, SONNET, NOW) == (
        "quota:7d",
        "7d is at 87%, its mark is 90%, back below 85%, resets in 60 min",
    )
    found.observe(told({"7d": 84.0}), NOW)
    assert found.settle(MARKS, NOW) == [("", False)]


@pytest.mark.parametrize("mark", [0, 3, 5])
def test_a_mark_below_the_hysteresis_lets_it_back_once_nothing_is_used(mark):
    policy = Quota(redirect_at={"5h": mark})
    found = meter(told({"5h": 50.0}), told({"5h": 0.0}), policy=policy)
    assert reason(found, policy) == ("quota:5h" if mark == 0 else "")


# windows that are used up


def test_any_window_that_is_used_up_passes_a_marked_provider_over():
    assert reason(meter(told(w30d=REJECTED))) == "quota:30d"
    assert reason(meter(told(w5h=REJECTED))) == "quota:5h"


def test_a_window_of_one_family_binds_that_family_only():
    found = meter(told(w7d_opus=REJECTED, w7d_oi=REJECTED))
    models = (OPUS, SONNET, "claude-fable-5-2", None)
    assert [reason(found, model=model) for model in models] == ["quota:7d_opus", "", "quota:7d_oi", ""]


def test_of_several_the_one_that_is_open_last_is_named():
    found = meter(RateLimitHeaders({"5h": REJECTED, "7d": REJECTED}, {}, {"5h": NOW + 60, "7d": NOW + 99}))
    assert found.refusal(MARKS, SONNET, NOW) == ("quota:7d", "7d is used up, resets in 99 s")
    assert reason(found, now=NOW + 98) == "quota:7d"
    assert reason(found, now=NOW + 99) == ""


def test_extra_usage_that_was_never_bought_is_no_reason():
    assert reason(meter(told({"overage": 0.0}, overage=REJECTED))) == ""


@pytest.mark.parametrize(
    "answer",
    [
        told({"5h": 50.0}, overall="allowed", in_use=True, w5h=REJECTED),
        told({"5h": 50.0}, overall="allowed_warning", w5h=REJECTED, overage="allowed"),
    ],
)
def test_where_extra_usage_is_in_use_its_mark_alone_counts(answer):
    found = meter(answer)
    assert reason(found) == ""
    found.observe(told({"overage": 80.0}), NOW)
    assert reason(found) == "quota:overage"


def test_a_refusal_passes_a_watched_provider_over_until_the_reset():
    found = meter(told(overall=REJECTED, w5h=REJECTED), policy=WATCHED, refused=SONNET)
    assert reason(found, WATCHED, OPUS) == "quota:5h"
    assert reason(found, WATCHED, OPUS, NOW + HOUR) == ""


def test_a_refused_model_is_bound_by_a_family_of_any_name():
    found = meter(told(overall=REJECTED, w7d_new=REJECTED), policy=WATCHED, refused=SONNET)
    assert (reason(found, WATCHED), reason(found, WATCHED, OPUS)) == ("quota:7d_new", "")


def test_an_open_plan_lifts_what_only_the_plan_had_said():
    found = meter(RateLimitHeaders({"plan": REJECTED}, {}, {}, REJECTED), policy=WATCHED, refused=SONNET)
    assert found.refusal(WATCHED, SONNET, NOW) == ("quota:plan", "plan is used up")
    found.observe(RateLimitHeaders({}, {}, {}, "allowed"), NOW)
    assert reason(found, WATCHED) == ""


def test_an_open_plan_does_not_lift_a_family_of_which_it_says_nothing():
    found = meter(told(w7d_opus=REJECTED))
    found.observe(told(overall="allowed", w5h="allowed"), NOW)
    assert reason(found, model=OPUS) == "quota:7d_opus"


def test_without_a_reset_it_is_asked_again_soon():
    found = meter(RateLimitHeaders({"5h": REJECTED}, {}, {}))
    assert (reason(found, now=NOW + UNNAMED - 1), reason(found, now=NOW + UNNAMED)) == ("quota:5h", "")


# time and change


def test_once_the_reset_has_passed_it_is_back_and_that_is_reported_once():
    found = meter(told({"5h": 91.0}))
    assert found.next_reset(NOW) == NOW + HOUR
    assert found.settle(MARKS, NOW + HOUR - 1) == []
    assert found.settle(MARKS, NOW + HOUR) == [("", False)]
    assert found.settle(MARKS, NOW + HOUR) == []
    assert found.next_reset(NOW) is None


def test_each_change_is_reported_once():
    found = Meter()
    found.observe(told({"5h": 91.0}, w7d_opus=REJECTED), NOW)
    assert found.settle(MARKS, NOW) == [("", True), ("7d_opus", True)]
    assert found.settle(MARKS, NOW) == []
    found.observe(told(w7d_opus="allowed"), NOW)
    assert found.settle(MARKS, NOW) == [("7d_opus", False)]


def test_a_new_policy_counts_at_once():
    found = meter(told({"5h": 91.0}))
    assert reason(found, Quota(redirect_at={"5h": 99})) == ""
    assert reason(found, WATCHED) == ""


def test_names_from_outside_are_bounded():
    found = meter(*(told({f"{number}h": 1.0}) for number in range(1000, 2000)), told({"5h": 95.0}))
    assert len(found.windows) == MOST + 1
    assert reason(found) == "quota:5h"


def test_what_is_shown_begins_with_the_windows_that_all_know():
    found = meter(told({"7d_opus": 5.0, "7d": 40.0}))
    assert [(name, window.percent) for name, window in found.shown(NOW).items()] == [
        ("5h", 0),
        ("7d", 40),
        ("overage", 0),
        ("7d_opus", 5),
    ]
    assert {window.percent for window in found.shown(NOW + HOUR).values()} == {0}


@given(st.lists(st.tuples(st.floats(0, 120), st.floats(0, 2 * HOUR)), max_size=20))
def test_below_the_mark_and_its_hysteresis_nobody_is_passed_over(steps):
    found, now = Meter(), NOW
    for percent, later in steps:
        now += later
        found.observe(RateLimitHeaders({}, {"5h": percent}, {"5h": now + HOUR}), now)
        found.settle(MARKS, now)
        assert (reason(found, now=now) != "") >= (percent >= 90)
        assert (reason(found, now=now) == "") >= (percent < 85)
        assert reason(found, now=now + HOUR) == ""


# all accounts


def provider(name: str, policy: Quota = MARKS, **options: Any) -> Provider:
    return Provider(name=name, url=Url("https", f"{name}.invalid", 443), quota=policy, **options)


def rules(*chains: tuple[str, ...], reject: Reject | None = None, of: tuple[Provider, ...] = ()) -> Rules:
    def rule(names: tuple[str, ...]) -> Rule:
        choices = tuple((Target(name),) for name in names)
        return Rule(label="#1", match=Match(), choices=choices, reject=reject, failover=Failover(), line=1)

    return Rules(providers={one.name: one for one in of}, rules=tuple(map(rule, chains)))


HOME = provider("anthropic")
FAMILY = provider("anthropic", replace(MARKS, accounts=(Path("/work"), Path("/new"))))


def test_accounts_are_passed_over_each_by_itself():
    quotas, all_rules = Quotas(), rules(("anthropic",), of=(FAMILY,))
    quotas.observe("anthropic", "/work", told({"5h": 91.0}), NOW)
    quotas.observe("anthropic", "", told({"5h": 20.0}), NOW)
    assert quotas.settle(all_rules, NOW) == [QuotaChange("anthropic", "/work", True, "")]
    refusals = [quotas.refusal(FAMILY, account, SONNET, NOW) for account in ("/work", "", "/new")]
    assert [bool(refusal) for refusal in refusals] == [True, False, False]


def test_an_account_that_the_rules_no_longer_name_is_left_alone_until_they_do():
    quotas = Quotas()
    quotas.observe("anthropic", "/work", told({"5h": 91.0}), NOW)
    assert quotas.settle(rules(("anthropic",), of=(HOME,)), NOW) == []
    assert quotas.of(HOME) == {}
    assert quotas.refusal_of_all(HOME, SONNET, NOW) is None
    assert quotas.settle(rules(("anthropic",), of=(FAMILY,)), NOW) == [
        QuotaChange("anthropic", "/work", True, "")
    ]


def test_a_provider_with_several_keys_is_shown_only():
    pool = provider("pool", keys=(Secret("fake-key-1"), Secret("fake-key-2")))
    quotas = Quotas()
    quotas.observe("pool", "", told({"5h": 91.0}, w5h=REJECTED), NOW, SONNET)
    assert quotas.refusal(pool, "", SONNET, NOW) is None
    assert quotas.settle(rules(("pool",), of=(pool,)), NOW) == []


def test_rules_may_ask_for_what_is_used():
    quotas, all_rules = Quotas(), rules(of=(FAMILY, provider("other")))
    quotas.observe("anthropic", "/work", told({"5h": 57.0, "7d_opus": 3.0}), NOW)
    quotas.observe("anthropic", "", told({"5h": 1.0}), NOW)
    used = quotas.used(all_rules, lambda provider: "/work", NOW)
    assert used == {("anthropic", "5h"): 57, ("anthropic", "7d_opus"): 3}
    assert quotas.used(all_rules, lambda provider: "/work", NOW + HOUR)["anthropic", "5h"] == 0
    assert quotas.used(all_rules, lambda provider: "/new", NOW) == {}


@pytest.mark.parametrize(
    "answers",
    [
        [],
        [told({"5h": 20.0}, "allowed", w5h="allowed")],
        [told({"5h": 91.0})],
        [told({"5h": 91.0}), told({"5h": 87.0})],
        [told(overall=REJECTED, w5h=REJECTED, w7d_opus=REJECTED)],
    ],
    ids=["unknown", "under", "over", "coming down", "used up"],
)
def test_what_is_known_outlives_the_process(answers):
    before, all_rules = Quotas(), rules(of=(HOME,))
    for answer in answers:
        before.observe("anthropic", "", answer, NOW, SONNET)
        before.settle(all_rules, NOW)
    after = Quotas(before.saved())
    assert after.settle(all_rules, NOW) == []
    assert after.refusal(HOME, "", SONNET, NOW) == before.refusal(HOME, "", SONNET, NOW)
    assert after.saved() == before.saved()


@pytest.mark.parametrize(
    "saved",
    [
        *(b"", b"{", b"[]", b"\xff", b'{"a":' * 10**5),
        b'{"anthropic": {"": {"windows": 5}}}',
        b'{"anthropic": {"": {"heard": 1e300}}}',
        b'{"anthropic": {"": {"windows": {"5h": {"percent": 95, "until": 1e300}}}}}',
    ],
)
def test_a_state_that_cannot_be_read_is_none(saved):
    assert Quotas(saved).saved() == b"{}"


@pytest.mark.parametrize(
    ("all_rules", "expected"),
    [
        (rules(("zai",), ("zai", "anthropic", "litellm"), ("anthropic", "kimi")), "litellm"),
        (rules(("anthropic", "anthropic", "kimi")), "kimi"),
        (rules(("zai", "anthropic"), ("anthropic", "kimi")), "kimi"),
        (rules(("zai", "anthropic")), "none"),
        (rules(("anthropic",), reject=Reject(503, "no")), "reject"),
        (rules(("zai",)), "none"),
    ],
)
def test_who_answers_in_its_place_is_next_in_the_first_rule_that_has_it(all_rules, expected):
    assert following(all_rules, "anthropic") == expected


# what routers on many machines tell each other


def observed(*answers: tuple[float, RateLimitHeaders]) -> Quotas:
    found = Quotas()
    for now, answer in answers:
        found.observe("anthropic", "", answer, now)
    return found


def tell(teller: Quotas, *hearers: Quotas) -> None:
    for window in teller.shared({}):
        for hearer in hearers:
            hearer.merge(window)


def windows(quotas: Quotas) -> dict[str, float]:
    return {name: window.percent for _, _, meter in quotas.all() for name, window in meter.windows.items()}


def test_of_each_window_the_newest_observation_counts_whoever_made_it():
    here = observed((NOW, told({"5h": 10.0, "7d": 50.0})))
    there = observed((NOW - 60, told({"7d": 40.0, "7d_opus": 99.0})), (NOW + 1, told({"5h": 20.0})))
    tell(here, there)
    tell(there, here)
    assert windows(here) == windows(there) == {"5h": 20.0, "7d": 50.0, "7d_opus": 99.0}


def test_only_what_is_new_is_reported():
    here = observed((NOW, told({"5h": 10.0})))
    known = {window.place: window.heard for window in here.shared({})}
    assert list(here.shared(known)) == []
    here.observe("anthropic", "", told({"7d": 1.0}), NOW + 1)
    assert [window.name for window in here.shared(known)] == ["", "7d"]


def test_a_router_that_starts_skips_what_the_others_skip():
    """At 87 % with a mark of 90 only who saw it above the mark still skips it."""
    there = Quotas()
    rules = Rules({"anthropic": provider("anthropic")})
    for percent in (91.0, 87.0):
        there.observe("anthropic", "", told({"5h": percent}), NOW)
        there.settle(rules, NOW)
    here = Quotas()
    tell(there, here)
    assert here.refusal(provider("anthropic"), "", SONNET, NOW) is not None


def test_what_another_version_reports_and_cannot_be_read_changes_nothing():
    here = observed((NOW, told({"5h": 10.0})))
    for name in ("", "5h"):
        assert not here.merge(SharedWindow("anthropic", "", name, NOW + 1, b"[]"))
    assert windows(here) == {"5h": 10.0}
