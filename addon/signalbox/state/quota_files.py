"""The line that tells people, hooks and status lines how an account stands, and the file that holds it.

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
    """At `now`, unix seconds, told as local time. `!` marks what is anything but allowed."""
    shown = (f"{told}{_mark(window)}" for told, window in _percentages(meter, now))
    moment = datetime.fromtimestamp(now).astimezone()
    return f"{' '.join(shown)} bottleneck={meter.claim or 'none'} ({moment:%d/%m/%Y, %H:%M:%S})"


def status_brief(meter: Meter, now: float) -> str:
    """`5h=91%, 7d=40%, overage=0%`"""
    return ", ".join(told for told, _ in _percentages(meter, now))


def status_file(policy: Quota, account: str) -> Path | None:
    """Where an account's line is kept; None where it is kept nowhere.

    The default account has `status_file`, unless that is another account's.
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
    """What the last answers told; nothing where there is no such file."""
    try:
        return Quotas(files.read(state / QUOTA_FILE))
    except OSError:
        return Quotas()
