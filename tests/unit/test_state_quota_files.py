"""The line of a status file, and where it is kept."""

import time
from datetime import datetime
from pathlib import Path

import pytest

from signalbox.config.rules import Quota
from signalbox.routing.quota import Meter
from signalbox.routing.rate_limit_headers import RateLimitHeaders
from signalbox.state.quota_files import status_brief, status_file, status_line

NOW = datetime(2026, 5, 10, 16, 19, 4).timestamp()  # noqa: DTZ001 (local time is what is shown)
SOON = NOW + 3600


def meter(claim: str = "", status: dict[str, str] | None = None, **percent: float) -> Meter:
    percents = {name.removeprefix("w"): value for name, value in percent.items()}
    resets = dict.fromkeys([*percents, *(status or {})], SOON)
    found = Meter()
    found.observe(RateLimitHeaders(status or {}, percents, resets, claim=claim), NOW)
    return found


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (
            meter("seven_day", {"5h": "allowed", "7d": "allowed_warning"}, w5h=9, w7d=99),
            "5h=9% 7d=99%! overage=0% bottleneck=seven_day (10/05/2026, 16:19:04)",
        ),
        (Meter(), "5h=0% 7d=0% overage=0% bottleneck=none (10/05/2026, 16:19:04)"),
        (
            meter("five_hour", {"overage": "rejected", "7d_opus": "rejected"}, w7d_opus=100, w30d=1, w5h=101),
            "5h=101% 7d=0% overage=0%! 30d=1% 7d_opus=100%! bottleneck=five_hour (10/05/2026, 16:19:04)",
        ),
        (
            meter(w5h=12.5, w7d=12.49, overage=99.5),
            "5h=13% 7d=12% overage=100% bottleneck=none (10/05/2026, 16:19:04)",
        ),
    ],
)
def test_the_line(found, expected):
    assert status_line(found, NOW) == expected


def test_a_window_whose_reset_has_passed_is_empty():
    assert status_line(meter(status={"5h": "rejected"}, w5h=100), SOON).startswith("5h=0% 7d=0% overage=0% ")


def test_the_time_is_local(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    try:
        assert status_line(Meter(), 1778429944.0).endswith("(10/05/2026, 22:04:04)")
    finally:
        monkeypatch.undo()
        time.tzset()


def test_in_brief():
    assert status_brief(meter(w5h=91, w7d=40), NOW) == "5h=91%, 7d=40%, overage=0%"


def test_where_it_is_kept():
    home, work = Path("/home/.claude"), Path("/home/.work")
    policy = Quota(status_file=home / "usage-status.md", accounts=(work,))
    assert status_file(policy, "") == home / "usage-status.md"
    assert status_file(policy, str(work)) == work / "usage-status.md"
    assert status_file(Quota(), "") is None


def test_the_default_account_leaves_anothers_file_alone():
    home = Path("/home/.claude")
    policy = Quota(status_file=home / "usage-status.md", accounts=(home,))
    assert status_file(policy, "") is None
    assert status_file(policy, str(home)) == home / "usage-status.md"
