"""The windows of a plan: recorded header sets, what is kept of them, and when one will be full.

A case is its source, the headers, and after the dashes what they tell.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.routing.rate_limit_headers import (
    FURTHEST,
    LONGEST,
    SAMPLES,
    UNNAMED,
    RateLimitHeaders,
    Window,
    family,
    is_of_family,
    is_shut,
    parse_rate_limits,
    short,
)

NOW = 1795176000.0
"""2026-11-20, noon."""
HOUR = 3600.0


def cases() -> Iterator[tuple[str, str, str]]:
    for file in sorted((Path(__file__).parents[1] / "golden/windows").glob("*.txt")):
        for number, text in enumerate(file.read_text().split("\n=====\n"), 1):
            given, expected = text.removesuffix("\n").split("\n---\n")
            yield f"{file.stem}-{number}", given, expected


CASES = list(cases())


def headers_of(recorded: str) -> dict[str, str]:
    source, *lines = recorded.splitlines()
    assert source.startswith("# ")
    pairs = (line.partition(":") for line in lines)
    return {name: value.strip() for name, _, value in pairs}


def in_words(told: RateLimitHeaders | None) -> str:
    if told is None:
        return "nothing"
    lines = []
    for name in sorted({*told.status, *told.percent, *told.reset}):
        percent = f" {told.percent[name]:g}%" if name in told.percent else ""
        word = told.status.get(name, "")
        status = f" {'rejected' if is_shut(word) else word}" if word else ""
        reset = f", resets in {told.reset[name] - NOW:g} s" if name in told.reset else ""
        lines.append(f"{name}{percent}{status}{reset}")
    if told.claim:
        lines.append(f"decides: {told.claim}")
    if told.exhausted:
        lines.append(f"used up: {told.latest_reset}" + ", of one family" * told.of_one_family)
    return "\n".join([*lines, *(["extra usage"] if told.overage_in_use else [])])


@pytest.mark.parametrize(("recorded", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_recorded_headers(recorded, expected):
    assert in_words(parse_rate_limits(headers_of(recorded), NOW)) == expected


def test_percentages_are_those_that_were_written():
    fractions = [f"0.{number:02}" for number in range(100)] + ["0.905", "1.15"]
    name = "anthropic-ratelimit-unified-5h-utilization"
    told = [parse_rate_limits({name: fraction}, NOW) for fraction in fractions]
    assert [one and one.percent["5h"] for one in told] == [*map(float, range(100)), 90.5, 115.0]


PARTS = ("status", "reset", "utilization", "surpassed-threshold", "fallback", "representative-claim")
NAMES = st.tuples(
    st.sampled_from(["", "5h-", "7d_opus-", "overage-", "x" * 60 + "-"]), st.sampled_from(PARTS)
)


@given(st.dictionaries(NAMES.map(lambda name: f"anthropic-ratelimit-unified-{''.join(name)}"), st.text()))
def test_whatever_a_header_says_is_reported_within_bounds_or_not_at_all(headers):
    told = parse_rate_limits(headers, NOW)
    if told is not None:
        names = {*told.status, *told.percent, *told.reset}
        assert all(len(name) <= LONGEST for name in names | set(told.status.values()))
        assert all(NOW < at <= NOW + FURTHEST for at in told.reset.values())
        assert all(0 <= percent < 1e12 for percent in told.percent.values())


def test_which_models_a_window_counts():
    assert [family(name) for name in ("5h", "7d", "overage", "7d_opus", "5h_x_y", "_", "")] == [
        *(None, None, None),
        *("opus", "x_y"),
        *(None, None),
    ]
    assert is_of_family("Claude-Opus-4-5", "opus")
    assert is_of_family("claude-fable-5-2", "oi")
    assert not is_of_family("claude-sonnet-4-5", "opus")
    assert [short(claim) for claim in ("five_hour", "seven_day_opus", "daily")] == ["5h", "7d_opus", "daily"]


# one window, answer by answer


def told(
    percent: float | None = None, status: str | None = None, reset: float | None = None
) -> RateLimitHeaders:
    def of_5h[T](value: T | None) -> dict[str, T]:
        return {} if value is None else {"5h": value}

    return RateLimitHeaders(of_5h(status), of_5h(percent), of_5h(reset))


def heard(*answers: tuple[float, RateLimitHeaders], refused: str | None = None) -> Window:
    window = Window()
    for now, answer in answers:
        window = window.updated("5h", answer, now, refused)
    return window


def test_what_an_answer_does_not_say_stays():
    whole = heard((NOW, told(40, "allowed", NOW + HOUR)))
    assert whole.updated("5h", told(41), NOW + 1, None) == heard(
        (NOW, told(40, "allowed", NOW + HOUR)), (NOW + 1, told(41, "allowed", NOW + HOUR))
    )
    assert whole.updated("5h", RateLimitHeaders({"7d": "rejected"}, {}, {}), NOW + 1, None) is whole


def test_once_its_reset_has_passed_nothing_is_used():
    window = heard((NOW, told(101, "rejected", NOW + HOUR)))
    assert window.at(NOW + HOUR - 1) == window
    assert window.at(NOW + HOUR) == Window()
    later = window.updated("5h", told(reset=NOW + 6 * HOUR), NOW + HOUR, None)
    assert (later.percent, later.status) == (0, "")


def test_a_reset_that_a_wrong_clock_has_put_years_away_does_not_count():
    window = heard((NOW, told(101, "rejected", NOW + HOUR)))
    before = NOW - 365 * 24 * HOUR
    assert window.at(before) == Window()
    assert window.updated("5h", told(50), before, None).percent == 50


def test_without_a_reset_it_counts_for_a_short_while():
    window = heard((NOW, told(95)))
    assert window.at(NOW + UNNAMED - 1).percent == 95
    assert window.at(NOW + UNNAMED).percent == 0


def test_a_refused_model_is_noted_until_the_window_is_open_again():
    shut = heard((NOW, told(100, "rejected", NOW + HOUR)), refused="claude-opus-4-5")
    assert shut.refused == ("claude-opus-4-5",)
    assert shut.updated("5h", told(status="rejected"), NOW + 1, None).refused == ("claude-opus-4-5",)
    assert shut.updated("5h", told(status="allowed"), NOW + 1, None).refused == ()


# when it will be full


def rising(*percents: float, every: float = 60.0, reset: float = NOW + 5 * HOUR) -> Window:
    return heard(*((NOW + number * every, told(one, reset=reset)) for number, one in enumerate(percents)))


def test_it_will_be_full_at_the_recent_rate():
    assert rising(50, 60, every=600).full_at("5h", NOW + 600) == NOW + 600 + 4 * 600


def test_only_the_recent_past_counts_for_the_rate():
    window = rising(0, 90, 90, 93, every=1500)
    assert window.full_at("5h", NOW + 4500) == NOW + 4500 + 7 * 3000 / 3


@pytest.mark.parametrize(
    ("window", "now"),
    [
        (Window(), NOW),
        (rising(50), NOW),
        (rising(50, 50, 50), NOW + 120),
        (rising(50, 60, every=10), NOW + 10),
        (rising(90, 101), NOW + 60),
        (rising(1, 2, every=1800), NOW + 1800),
        (rising(50, 80, 0, every=600), NOW + 1200),
        (rising(50, 60, every=600), NOW + 6 * HOUR),
    ],
    ids=["unknown", "once", "flat", "too-short", "full", "resets-first", "has-reset", "is-over"],
)
def test_without_a_rate_there_is_no_forecast(window, now):
    assert window.full_at("5h", now) is None


def test_a_week_is_measured_in_days():
    day = 24 * HOUR
    answers = [
        (NOW + n * HOUR, RateLimitHeaders({}, {"7d": 20 + n / 2}, {"7d": NOW + 7 * day}), None)
        for n in range(25)
    ]
    window = Window()
    for now, answer, refused in answers:
        window = window.updated("7d", answer, now, refused)
    assert window.full_at("7d", NOW + day) == pytest.approx(NOW + day + 68 * 2 * HOUR)


@given(st.lists(st.floats(0, 120), max_size=300))
def test_samples_are_bounded(percents):
    window = heard(*((NOW + n * 10, told(one, reset=NOW + 5 * HOUR)) for n, one in enumerate(percents)))
    assert len(window.samples) <= SAMPLES + 2
