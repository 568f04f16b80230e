"""How the accounts of a provider stand, as pages and commands show it."""

from datetime import UTC, datetime
from typing import Any

from signalbox.config.rules import Provider
from signalbox.routing.quota import DEFAULT, Meter, Quotas
from signalbox.routing.rate_limit_headers import Window


def quota(quotas: Quotas, provider: Provider, now: datetime) -> dict[str, Any] | None:
    """How the provider's accounts stand; None where nothing was heard. The default account's state stands
    first, those of config folders under `accounts`."""
    meters = quotas.of(provider)
    if not meters:
        return None
    told = {account: _meter(meter, now.timestamp()) for account, meter in meters.items()}
    others = {account: state for account, state in told.items() if account != DEFAULT}
    return told.get(DEFAULT, {}) | ({"accounts": others} if others else {})


def _meter(meter: Meter, now: float) -> dict[str, Any]:
    return {
        "redirected": bool(meter.held),
        "redirected_for": sorted(scope or "all models" for scope in meter.held),
        "bottleneck": meter.claim or None,
        "heard_at": _utc(meter.heard),
        "windows": {name: _window(name, window, now) for name, window in meter.shown(now).items()},
    }


def _window(name: str, window: Window, now: float) -> dict[str, Any]:
    full = window.full_at(name, now)
    return {
        "percent": window.percent,
        "status": window.status or None,
        "resets_at": _utc(window.reset),
        "full_at": _utc(full),
        "forecast": forecast(name, full, now),
    }


def forecast(window: str, full: float | None, now: float) -> str | None:
    """`5h full at ~13:40`, local time, with the day where that is not today."""
    if full is None:
        return None
    moment, today = (datetime.fromtimestamp(at).astimezone() for at in (full, now))
    is_today = moment.date() == today.date()
    return f"{window} full at ~{moment:%H:%M}" + ("" if is_today else f" on {moment:%d/%m}")


def _utc(moment: float | None) -> str | None:
    if moment is None:
        return None
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
