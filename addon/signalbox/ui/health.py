"""`GET /health`: state of the router and its providers, without secrets (the contract, section 3)."""

import os
import time
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

import msgspec

from signalbox import __version__
from signalbox.anthropic.api import MESSAGES
from signalbox.anthropic.json_edit import Body
from signalbox.config.rules import DEFAULT_MODELS, Provider, Rule, Rules
from signalbox.config.watch import Source
from signalbox.routing.facts import Facts
from signalbox.routing.health import ProviderHealth
from signalbox.routing.plan import Plan, plan
from signalbox.routing.quota import DEFAULT, Meter, Quotas
from signalbox.routing.rate_limit_headers import Window
from signalbox.state.unsupported_store import Fact

LOGINS = ("client", "claude-login", "codex-login")


class InForce(Protocol):
    """The rules in force and when they were loaded: `config.watch.Live`."""

    rules: Rules
    error: str
    loaded_at: datetime
    source: Source


type Refused = Callable[[Provider, str | None], tuple[str, str] | None]
"""Returns why this model of a provider is unavailable to every caller now (reason, detail), else None."""


class Seen(NamedTuple):
    """State of the providers, as observed since the start."""

    key_valid: Mapping[str, bool]
    """By provider: False where its last answer refused the key. Absent until a first answer."""
    fails_open: bool
    """True while a recent request was passed on unrouted after an internal error."""
    health: ProviderHealth
    refused: Refused
    quotas: Quotas
    learned: Collection[Fact]


def page(
    live: InForce, seen: Seen, listeners: list[dict[str, Any]], port: int | None, now: datetime
) -> dict[str, Any]:
    """The page. `listeners` have host, port and mode of each that is open. `tiers` shows how requests to the
    listener on `port` are routed; empty without one."""
    rules, moment = live.rules, time.monotonic()
    return {
        "status": _status(live, seen, moment),
        "version": __version__,
        "pid": os.getpid(),
        "timestamp": now.isoformat(timespec="seconds").replace("+00:00", "Z"),
        "listeners": listeners,
        "client_validation": bool(rules.clients),
        "rules": {
            "file": str(rules.file),
            "loaded_at": live.loaded_at.isoformat(timespec="seconds").replace("+00:00", "Z"),
            "error": live.error or None,
            "source": live.source,
        },
        "providers": {
            name: _provider(p, seen, moment, now) | {"rejects": _rejects(name, seen.learned)}
            for name, p in rules.providers.items()
        },
        "tiers": {} if port is None else {tier: _tier(rules, tier, port) for tier in DEFAULT_MODELS},
    }


def _rejects(provider: str, learned: Collection[Fact]) -> dict[str, list[str]]:
    """By model, the fields and betas that the provider has rejected."""
    found: dict[str, list[str]] = {}
    for fact in learned:
        if fact.provider == provider:
            found.setdefault(fact.model, []).append(fact.field)
    return found


def encode(page: dict[str, Any], *, full: bool) -> bytes:
    """JSON; only `status` unless `full`."""
    return msgspec.json.encode(page if full else {"status": page["status"]})


def _status(live: InForce, seen: Seen, now: float) -> str:
    rules = live.rules
    if any(_has_no_target(rules, rule, seen.refused) for rule in rules.rules):
        return "unhealthy"
    unwell = any(_is_degraded(provider, seen.refused) for provider in rules.providers.values())
    broken = any(state != "closed" for state in seen.health.circuits(now).values())
    return "degraded" if live.error or seen.fails_open or unwell or broken else "healthy"


def _has_no_target(rules: Rules, rule: Rule, refused: Refused) -> bool:
    """True if no target of a rule is available now."""
    targets = [target for equals in rule.choices for target in equals]
    return bool(targets) and all(
        _unavailable(rules.providers[target.provider], target.model, refused) for target in targets
    )


def _is_degraded(provider: Provider, refused: Refused) -> bool:
    """True if a provider is unavailable and the user did not choose that.

    A key left unset is such a choice.
    """
    left_out = provider.auth == "key" and provider.key is None
    return not left_out and bool(_unavailable(provider, None, refused))


def _unavailable(provider: Provider, model: str | None, refused: Refused) -> str:
    """Why the provider is unavailable by its rules or its state; else empty."""
    if provider.unavailable:
        return provider.unavailable
    refusal = refused(provider, model)
    return ": ".join(refusal) if refusal else ""


def _provider(provider: Provider, seen: Seen, moment: float, now: datetime) -> dict[str, Any]:
    reason = _unavailable(provider, None, seen.refused)
    return {
        "url": str(provider.url),
        "api": provider.api if isinstance(provider.api, str) else {g.text: api for g, api in provider.api},
        "available": not reason,
        "reason": reason or None,
        "circuit": seen.health.circuits(moment).get(provider.name, "closed"),
        "quota": _quota(seen.quotas, provider, now),
        "key_set": provider.key is not None,
        "key_valid": seen.key_valid.get(provider.name),
    }


def _tier(rules: Rules, tier: str, port: int) -> dict[str, Any]:
    """Where a request for the default model of this tier goes."""
    model = rules.environment.get(f"ANTHROPIC_DEFAULT_{tier.upper()}_MODEL") or DEFAULT_MODELS[tier]
    body = Body.parse(msgspec.json.encode({"model": model, "messages": []}))
    chosen: Plan = plan(rules, Facts(path=MESSAGES, port=port, headers={}, body=body))
    first = chosen.candidates[0] if chosen.candidates else None
    return {
        "model": first.model if first is not None else model,
        "provider": first.provider.name if first is not None else None,
        "provider_set": first is not None,
        "uses_oauth": chosen.rule is None or (first is not None and first.provider.auth in LOGINS),
    }


def _quota(quotas: Quotas, provider: Provider, now: datetime) -> dict[str, Any] | None:
    """The quota windows of the default account, and under `accounts` those of config folders; None before any
    answer has reported one."""
    meters = quotas.of(provider)
    if not meters:
        return None
    shown = {account: _meter(meter, now.timestamp()) for account, meter in meters.items()}
    others = {account: state for account, state in shown.items() if account != DEFAULT}
    return shown.get(DEFAULT, {}) | ({"accounts": others} if others else {})


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
    """`5h full at ~13:40`, in local time, with the date unless that is today."""
    if full is None:
        return None
    moment, today = (datetime.fromtimestamp(at).astimezone() for at in (full, now))
    is_today = moment.date() == today.date()
    return f"{window} full at ~{moment:%H:%M}" + ("" if is_today else f" on {moment:%d/%m}")


def _utc(moment: float | None) -> str | None:
    if moment is None:
        return None
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
