"""The windows of a Codex plan, as its answers report them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.config.rules import Quota
from signalbox.routing.codex_limits import parse_windows
from signalbox.routing.quota import Meter

NOW = 1795176000.0
HOUR, DAY = 3600.0, 86400.0


def windows(**fields: object) -> dict[str, str]:
    """Headers: `windows(primary_used_percent=12)`."""
    return {f"X-Codex-{name.replace('_', '-')}": str(value) for name, value in fields.items()}


PLAN = windows(
    primary_used_percent=81.5,
    primary_window_minutes=10080,
    primary_reset_at=int(NOW + DAY),
    secondary_used_percent=12,
    secondary_window_minutes=299,
    secondary_reset_after_seconds=7200,
    plan_type="plus",
)


def test_a_window_is_named_by_its_length_and_not_by_its_slot():
    found = parse_windows(PLAN, NOW)
    assert found is not None
    assert found.percent == {"7d": 81.5, "5h": 12}
    assert found.reset == {"7d": NOW + DAY, "5h": NOW + 2 * HOUR}
    assert found.status == {"7d": "allowed", "5h": "allowed"}


@pytest.mark.parametrize(
    ("minutes", "name"),
    [(240, "5h"), (300, "5h"), (360, "5h"), (10079, "7d"), (11520, "7d"), (43200, "43200m"), (90, "90m")],
)
def test_other_lengths_are_named_in_minutes(minutes, name):
    found = parse_windows(windows(primary_used_percent=1, primary_window_minutes=minutes), NOW)
    assert found is not None
    assert list(found.percent) == [name]


@pytest.mark.parametrize(
    ("credits", "status"),
    [
        ({}, "rejected"),
        ({"credits_has_credits": "true"}, "allowed"),
        ({"credits_unlimited": "true"}, "allowed"),
    ],
)
def test_a_full_window_is_used_up_unless_there_are_credits(credits, status):
    found = parse_windows(windows(primary_used_percent=100, primary_window_minutes=300, **credits), NOW)
    assert found is not None
    assert found.status == {"5h": status}


def test_a_family_of_models_has_windows_of_its_own():
    spark = windows(
        bengalfox_primary_used_percent=100,
        bengalfox_primary_window_minutes=300,
        bengalfox_primary_reset_at=int(NOW + HOUR),
        bengalfox_limit_name="GPT-5.3-Codex-Spark",
    )
    found = parse_windows(PLAN | spark, NOW)
    assert found is not None
    assert found.percent["5h_gpt_5_3_codex_spark"] == 100
    meter = Meter()
    meter.observe(found, NOW, "gpt-5.3-codex-spark")
    policy = Quota(redirect_at={"5h": 90})
    assert meter.refusal(policy, "gpt-5.6-sol", NOW) is None
    assert meter.refusal(policy, "gpt-5.3-codex-spark", NOW) is not None


def test_windows_of_the_plan_pass_the_provider_over_at_their_marks():
    meter, found = Meter(), parse_windows(PLAN, NOW)
    assert found is not None
    meter.observe(found, NOW)
    refused = meter.refusal(Quota(redirect_at={"7d": 80}), "gpt-5.6-sol", NOW)
    assert refused == ("quota:7d", "7d is at 81.5%, its mark is 80%, resets in 24 h")
    assert meter.refusal(Quota(redirect_at={"7d": 80}), "gpt-5.6-sol", NOW + DAY + 1) is None


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-codex-plan-type": "plus"},
        windows(primary_used_percent=5),
        windows(primary_used_percent="many", primary_window_minutes=300),
        windows(primary_used_percent=5, primary_window_minutes=0),
        windows(primary_used_percent=5, primary_window_minutes=10**9),
    ],
)
def test_what_reports_no_window_is_ignored(headers):
    assert parse_windows(headers, NOW) is None


@pytest.mark.parametrize("reset", ["yesterday", "-5", "1e400", str(int(NOW + 400 * DAY)), str(int(NOW - 5))])
def test_a_reset_that_cannot_be_is_left_out(reset):
    found = parse_windows(
        windows(primary_used_percent=5, primary_window_minutes=300, primary_reset_at=reset), NOW
    )
    assert found is not None
    assert found.reset == {}


NAMES = st.sampled_from(["primary", "secondary", "spark-primary", "-primary", "a-b-secondary"])
FIELDS = st.sampled_from(["used-percent", "window-minutes", "reset-at", "reset-after-seconds", "limit-name"])
HEADERS = st.dictionaries(
    st.builds("x-codex-{}-{}".format, NAMES, FIELDS), st.one_of(st.text(), st.integers().map(str))
)


@given(HEADERS)
def test_any_headers_give_windows_that_a_meter_takes(headers):
    found = parse_windows(headers, NOW)
    if found is not None:
        meter = Meter()
        meter.observe(found, NOW, "gpt-5.6-sol")
        assert all(window.percent >= 0 for window in meter.shown(NOW).values())
        meter.refusal(Quota(redirect_at={"5h": 90}), "gpt-5.6-sol", NOW)
