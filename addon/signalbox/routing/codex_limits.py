"""Reads the windows of a Codex plan from the headers of its answers (openai-responses.md, 9).

`x-codex-primary-used-percent` (0 to 100), `-window-minutes`, `-reset-at` (unix seconds),
`-reset-after-seconds`; the same of `secondary`, and of families of models: `x-codex-NAME-primary-...`.
A window is named by its length, since the week may be the primary one.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from signalbox.routing.rate_limit_headers import FURTHEST, LONGEST, RateLimitHeaders, parse_rate_limits
from signalbox.routing.retry_after import ahead

_PREFIX = "x-codex-"
_OF_A_WINDOW = re.compile(
    r"x-codex-(?:([\w-]+)-)?(primary|secondary)-(used-percent|window-minutes|reset-at|reset-after-seconds)",
    re.ASCII,
)
_NUMBER = re.compile(r"\d{1,12}(?:\.\d{1,30})?", re.ASCII)
_NOT_IN_NAME = re.compile(r"\W+", re.ASCII)

_LENGTHS = (("5h", 240, 360), ("7d", 8640, 11520))
"""Name of a window, and the lengths in minutes that count as it: 299 was seen."""
_FULL = 100.0
_LONGEST = 366 * 24 * 60
"""Minutes of the longest window that is believed."""


def parse_windows(headers: Mapping[str, str], now: float) -> RateLimitHeaders | None:
    """The windows that an answer of Anthropic's, or of Codex's backend, reports; None if there are none."""
    return parse_rate_limits(headers, now) or parse_codex_limits(headers, now)


def parse_codex_limits(headers: Mapping[str, str], now: float) -> RateLimitHeaders | None:
    """Reads headers, whose names may have any case. None if there are none about windows. Never raises."""
    value = {name.lower(): headers[name].strip() for name in headers if name.lower().startswith(_PREFIX)}
    slots: dict[tuple[str, str], dict[str, str]] = {}
    for name, text in value.items():
        if found := _OF_A_WINDOW.fullmatch(name):
            slots.setdefault((found[1] or "", found[2]), {})[found[3]] = text
    has_credits = "true" in (value.get("x-codex-credits-has-credits"), value.get("x-codex-credits-unlimited"))
    status: dict[str, str] = {}
    percent: dict[str, float] = {}
    reset: dict[str, float] = {}
    for (family, _), fields in slots.items():
        used, minutes = _number(fields.get("used-percent")), _number(fields.get("window-minutes"))
        if used is None or not minutes or minutes > _LONGEST:
            continue
        name = _named(minutes, value.get(f"x-codex-{family}-limit-name") or family)
        percent[name] = used
        status[name] = "rejected" if used >= _FULL and not has_credits else "allowed"
        if left := _left(fields, now):
            reset[name] = now + left
    return RateLimitHeaders(status, percent, reset) if percent else None


def _named(minutes: float, family: str) -> str:
    """`5h`, `7d`, `90m`, and `5h_spark` for a window of one family of models."""
    name = next((name for name, low, high in _LENGTHS if low <= minutes <= high), f"{minutes:g}m")
    suffix = _NOT_IN_NAME.sub("_", family.lower()).strip("_")
    return f"{name}_{suffix}"[:LONGEST] if suffix else name


def _left(fields: Mapping[str, str], now: float) -> float | None:
    """Seconds until the window resets."""
    written = fields.get("reset-at") or fields.get("reset-after-seconds") or ""
    left = ahead(written, datetime.fromtimestamp(now, UTC))
    return left if left is not None and left <= FURTHEST else None


def _number(text: str | None) -> float | None:
    return float(text) if text and _NUMBER.fullmatch(text) else None
