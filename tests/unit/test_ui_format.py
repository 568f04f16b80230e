"""How the pages write figures."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from signalbox.ui import format

NOON = datetime(2026, 11, 19, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("amount", "written"),
    [
        (None, "—"),
        (0.0, "$0.00"),
        (0.00421, "$0.0042"),
        (0.01, "$0.01"),
        (12.345, "$12.35"),
        (20.0, "$20"),
        (1204.4, "$1,204"),
        (-3.5, "-$3.50"),
    ],
)
def test_money(amount, written):
    assert format.usd(amount) == written


@pytest.mark.parametrize(
    ("number", "written"),
    [
        (None, "—"),
        (0, "0"),
        (999, "999"),
        (1000, "1k"),
        (1340, "1.3k"),
        (999_950, "1M"),
        (2_000_000, "2M"),
        (4_120_000_000, "4.1B"),
    ],
)
def test_tokens(number, written):
    assert format.tokens(number) == written


@pytest.mark.parametrize(
    ("number", "written"), [(None, "—"), (0, "0%"), (0.4, "0.4%"), (81.5, "82%"), (100, "100%")]
)
def test_percent(number, written):
    assert format.percent(number) == written


@pytest.mark.parametrize(
    ("ms", "written"),
    [
        (None, "—"),
        (340, "340 ms"),
        (3421, "3.4 s"),
        (59_960, "1 m 00 s"),
        (125_000, "2 m 05 s"),
        (7_500_000, "2 h 05 m"),
    ],
)
def test_duration(ms, written):
    assert format.duration(ms) == written


def test_moment_of_today_has_no_date():
    zone = timezone(timedelta(hours=2))
    assert format.moment(NOON, NOON + timedelta(hours=1), zone) == "14:00:00"
    assert format.moment(NOON, NOON + timedelta(hours=10), zone) == "2026-11-19 14:00:00"
