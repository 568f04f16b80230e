"""Reads from headers and error texts when a provider will answer again. All results are seconds from
`now`."""

import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from email.utils import parsedate_to_datetime

BEIJING = timezone(timedelta(hours=8))
"""The time zone of the times that Z.ai writes without a zone."""

_YEAR_2001 = 1e9
"""Unix seconds. A larger number is a point in time, a smaller one a duration."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd])", re.ASCII)
_TRY_AGAIN = re.compile(r"(?:try|retry) again in ((?:\d+(?:\.\d+)?(?:ms|[smhd]))+)(?![\w-])", re.IGNORECASE)
_NUMBER = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
_LIMIT_RESET = re.compile(r"x-ratelimit-reset(?:-[\w-]+)?|anthropic-ratelimit-(?!unified)[\w-]+-reset")
_TEXT_MOMENT = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:T| at | )(\d\d:\d\d(?::\d\d)?)(?:\.\d+)?\s?(UTC|GMT|Z|[+-]\d\d:\d\d)?", re.ASCII
)


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds in `retry-after-ms` or `retry-after` (a number or an HTTP date); None without them."""
    millis = _number(headers.get("retry-after-ms", ""))
    if millis is not None:
        return millis / 1000
    written = headers.get("retry-after", "")
    seconds = _number(written)
    return seconds if seconds is not None else _until_http_date(written, now)


def limits(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds until the last exhausted limit of `x-ratelimit-*` or `anthropic-ratelimit-*` resets.

    Limits with something remaining are ignored: they did not stop the request.
    """
    exhausted = (
        value
        for name, value in headers.items()
        if _LIMIT_RESET.fullmatch(name.lower())
        and headers.get(name.lower().replace("reset", "remaining"), "0").strip() == "0"
    )
    return _latest(exhausted, now)


def in_text(message: str, now: datetime, zone: tzinfo) -> float | None:
    """Seconds until a time in a message, such as `2025-10-03 08:23:14`; in `zone` unless it names one."""
    found = _TEXT_MOMENT.search(message)
    if not found:
        return None
    day, time, written = found.groups()
    offset = "+00:00" if written in ("UTC", "GMT", "Z") else written or ""
    try:
        moment = datetime.fromisoformat(f"{day} {time}{offset}")
    except ValueError:
        return None
    return _until(moment if moment.tzinfo else moment.replace(tzinfo=zone), now)


def in_words(message: str) -> float | None:
    """Seconds in a message that says so: `Please try again in 11.054s.` (OpenAI)."""
    found = _TRY_AGAIN.search(message)
    return parse_go_duration(found[1]) if found else None


def next_day(now: datetime, zone: tzinfo) -> float:
    """Seconds until midnight in `zone`."""
    midnight = now.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0)
    return (midnight + timedelta(days=1) - now).total_seconds()


def next_month(now: datetime) -> float:
    """Seconds until the first of next month, in UTC."""
    first = now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return ((first + timedelta(days=32)).replace(day=1) - now).total_seconds()


def parse_go_duration(text: str) -> float | None:
    """Seconds of `37s`, `1.5s`, `6m0s`, `120ms`; else None."""
    spans = list(_SPAN.finditer(text))
    if not spans or "".join(span[0] for span in spans) != text:
        return None
    return _finite(sum(float(span[1]) * _UNITS[span[2]] for span in spans))


def _latest(resets: Iterable[str], now: datetime) -> float | None:
    return max(filter(None, (ahead(value, now) for value in resets)), default=None)


def ahead(written: str, now: datetime) -> float | None:
    """Seconds until the time in a reset header: unix seconds or milliseconds, seconds from now, a Go duration
    (OpenAI), RFC 3339 (Anthropic). None if it is past or cannot be read."""
    written = written.strip()
    number = _number(written)
    if number is not None:
        is_unix = number > _YEAR_2001
        seconds = number / (1000 if number > _YEAR_2001 * 1000 else 1)
        return _ahead(seconds - now.timestamp() if is_unix else seconds)
    return parse_go_duration(written) or in_text(written, now, UTC)


def _until_http_date(written: str, now: datetime) -> float | None:
    try:
        moment = parsedate_to_datetime(written)
    except (ValueError, OverflowError):
        return None
    return _until(moment if moment.tzinfo else moment.replace(tzinfo=UTC), now)


def _until(moment: datetime, now: datetime) -> float | None:
    return _ahead((moment - now).total_seconds())


def _ahead(seconds: float) -> float | None:
    return seconds if seconds > 0 else None


def _number(written: str) -> float | None:
    written = written.strip()
    return _finite(float(written)) if _NUMBER.fullmatch(written) else None


def _finite(seconds: float) -> float | None:
    return seconds if math.isfinite(seconds) else None
