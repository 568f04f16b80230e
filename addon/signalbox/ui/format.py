"""How the pages write figures. What is not known is a dash."""

from datetime import UTC, datetime, tzinfo

DASH = "—"
_UNITS = ((1_000_000_000, "B"), (1_000_000, "M"), (1_000, "k"))


def usd(amount: float | None) -> str:
    """`$1,204`, `$12.34`, `$20`, `$0.0042`: cents from one cent on, four decimals below."""
    if amount is None:
        return DASH
    size, sign = abs(amount), "-" if amount < 0 else ""
    if size >= 1000 or (size >= 10 and size == int(size)):
        return f"{sign}${size:,.0f}"
    return f"{sign}${size:.2f}" if size >= 0.01 or not size else f"{sign}${size:.4f}"


def tokens(number: float | None) -> str:
    """`999`, `1.3k`, `2M`, `4.1B`."""
    if number is None:
        return DASH
    for size, unit in _UNITS:
        if number >= size - size / 2000:  # 999,950 is 1.0M, not 1000.0k
            return f"{number / size:.1f}".removesuffix(".0") + unit
    return f"{number:.0f}"


def whole(number: float | None) -> str:
    """`12,345`."""
    return DASH if number is None else f"{number:,.0f}"


def percent(number: float | None) -> str:
    """`93%`, `0.4%`."""
    if number is None:
        return DASH
    return f"{number:.1f}%" if 0 < number < 1 else f"{number:.0f}%"


def duration(ms: float | None) -> str:
    """`340 ms`, `3.4 s`, `2 m 05 s`."""
    if ms is None:
        return DASH
    if ms < 1000:
        return f"{ms:.0f} ms"
    if ms < 59_950:
        return f"{ms / 1000:.1f} s"
    minutes, seconds = divmod(round(ms / 1000), 60)
    if minutes < 60:
        return f"{minutes} m {seconds:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} m"


def moment(at: datetime, now: datetime, zone: tzinfo | None) -> str:
    """`14:03:22` of today, else `2026-11-28 14:03:22`."""
    local, today = at.astimezone(zone), now.astimezone(zone)
    return f"{local:%H:%M:%S}" if local.date() == today.date() else f"{local:%Y-%m-%d %H:%M:%S}"


def of_ms(moment: int) -> datetime:
    """Unix milliseconds, as the ledger has them, as a moment in UTC."""
    return datetime.fromtimestamp(moment / 1000, UTC)
