"""The status line with the quota of an account, and the files for quota.

`5h=9% 7d=99%! overage=0% bottleneck=seven_day (10/05/2026, 16:19:04)` (the contract, section 6)
"""

from datetime import datetime
from pathlib import Path

from signalbox.config import files
from signalbox.config.rules import Quota
from signalbox.routing.quota import DEFAULT, Meter, Quotas
from signalbox.routing.rate_limit_headers import Window

STATUS_FILE = "usage-status.md"
OPEN = ("", "allowed")


def status_line(meter: Meter, now: float) -> str:
    """The line at `now`, Unix seconds, shown in local time. `!` marks windows whose status is not allowed."""
    shown = (f"{text}{_mark(window)}" for text, window in _percentages(meter, now))
    moment = datetime.fromtimestamp(now).astimezone()
    return f"{' '.join(shown)} bottleneck={meter.claim or 'none'} ({moment:%d/%m/%Y, %H:%M:%S})"


def status_brief(meter: Meter, now: float) -> str:
    """`5h=91%, 7d=40%, overage=0%`"""
    return ", ".join(text for text, _ in _percentages(meter, now))


def status_file(policy: Quota, account: str) -> Path | None:
    """The file of an account's line; None if it has none.

    The default account uses `status_file`, unless that is another account's file.
    """
    if account != DEFAULT:
        return Path(account) / STATUS_FILE
    taken = {folder / STATUS_FILE for folder in policy.accounts}
    return None if policy.status_file in taken else policy.status_file


def _percentages(meter: Meter, now: float) -> list[tuple[str, Window]]:
    return [(f"{name}={int(window.percent + 0.5)}%", window) for name, window in meter.shown(now).items()]


def _mark(window: Window) -> str:
    return "" if window.status in OPEN else "!"


QUOTA_FILE = "quota.json"
"""In `router_state`."""


def read_quotas(state: Path) -> Quotas:
    """The last reported quota of all accounts; empty if there is no file."""
    try:
        return Quotas(files.read_file(state / QUOTA_FILE))
    except OSError:
        return Quotas()
