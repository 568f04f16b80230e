"""`GET /health`: how the router stands, without a secret in it (the contract, section 3)."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple, Protocol

import msgspec

from signalbox import __version__
from signalbox.config.rules import Provider, Rule, Rules
from signalbox.messages.api import MESSAGES
from signalbox.messages.json_edit import Body
from signalbox.pages.quota import quota
from signalbox.routing.facts import Facts
from signalbox.routing.health import ProviderHealth
from signalbox.routing.plan import Plan, plan
from signalbox.routing.quota import Quotas
from signalbox.state.unsupported_store import Fact

LOGINS = ("client", "claude-login")
TIERS = ("haiku", "sonnet", "opus")


class Listener(Protocol):
    """As mitmproxy bound it."""

    def _asdict(self) -> dict[str, Any]: ...


class InForce(Protocol):
    """The rules in force and how they came to be; `config.watch.Live` is that."""

    rules: Rules
    error: str
    loaded_at: datetime


type Refused = Callable[[Provider, str | None], tuple[str, str] | None]
"""Says why this model of a provider is not asked now, as in `plan.Refusal`, whoever it is that asks."""


class Seen(NamedTuple):
    """All that providers have shown of themselves."""

    key_valid: Mapping[str, bool]
    """Of each provider that has answered, whether it took its key."""
    fails_open: bool
    """Whether a request was let through unrouted lately, after an error."""
    health: ProviderHealth
    refused: Refused
    quotas: Quotas
    learned: Collection[Fact]


def page(
    live: InForce, seen: Seen, listeners: Iterable[Listener], port: int, now: datetime
) -> dict[str, Any]:
    """The page as the listener on `port` shows it: its rules' tiers are those that this port would get."""
    rules, moment = live.rules, time.monotonic()
    return {
        "status": _status(live, seen, moment),
        "version": __version__,
        "timestamp": now.isoformat(timespec="seconds").replace("+00:00", "Z"),
        "listeners": [listener._asdict() for listener in listeners],
        "client_validation": bool(rules.clients),
        "rules": {
            "file": str(rules.file),
            "loaded_at": live.loaded_at.isoformat(timespec="seconds").replace("+00:00", "Z"),
            "error": live.error or None,
        },
        "providers": {
            name: _provider(p, seen, moment, now) | {"rejects": _rejects(name, seen.learned)}
            for name, p in rules.providers.items()
        },
        "tiers": {tier: _tier(rules, tier, port) for tier in TIERS},
    }


def _rejects(provider: str, learned: Collection[Fact]) -> dict[str, list[str]]:
    """By model, the fields and betas that it was seen to reject."""
    found: dict[str, list[str]] = {}
    for fact in learned:
        if fact.provider == provider:
            found.setdefault(fact.model, []).append(fact.field)
    return found


def encode(page: dict[str, Any], *, full: bool) -> bytes:
    """As JSON; only `status` for those who may not see more."""
    return msgspec.json.encode(page if full else {"status": page["status"]})


def _status(live: InForce, seen: Seen, now: float) -> str:
    rules = live.rules
    if any(_has_nobody(rules, rule, seen.refused) for rule in rules.rules):
        return "unhealthy"
    unwell = any(_is_missed(provider, seen.refused) for provider in rules.providers.values())
    broken = any(state != "closed" for state in seen.health.circuits(now).values())
    return "degraded" if live.error or seen.fails_open or unwell or broken else "healthy"


def _has_nobody(rules: Rules, rule: Rule, refused: Refused) -> bool:
    """Whether no target of a rule can be asked now."""
    targets = [target for equals in rule.choices for target in equals]
    return bool(targets) and all(
        _unavailable(rules.providers[target.provider], target.model, refused) for target in targets
    )


def _is_missed(provider: Provider, refused: Refused) -> bool:
    """Whether a provider is unavailable and that is no choice of the user's.

    A key left unset for a provider that every rule can do without is one.
    """
    left_out = provider.auth == "key" and provider.key is None
    return not left_out and bool(_unavailable(provider, None, refused))


def _unavailable(provider: Provider, model: str | None, refused: Refused) -> str:
    """Why nobody is sent there now, as far as the rules and what has happened tell; else empty."""
    if provider.unavailable:
        return provider.unavailable
    refusal = refused(provider, model)
    return ": ".join(refusal) if refusal else ""


def _provider(provider: Provider, seen: Seen, moment: float, now: datetime) -> dict[str, Any]:
    reason = _unavailable(provider, None, seen.refused)
    return {
        "url": str(provider.url),
        "api": provider.api,
        "available": not reason,
        "reason": reason or None,
        "circuit": seen.health.circuits(moment).get(provider.name, "closed"),
        "quota": quota(seen.quotas, provider, now),
        "key_set": provider.key is not None,
        "key_valid": seen.key_valid.get(provider.name),
    }


def _tier(rules: Rules, tier: str, port: int) -> dict[str, Any]:
    """Where a request for this tier's usual model would go."""
    model = rules.environment.get(f"ANTHROPIC_DEFAULT_{tier.upper()}_MODEL") or f"claude-{tier}-4-5"
    body = Body.parse(msgspec.json.encode({"model": model, "messages": []}))
    chosen: Plan = plan(rules, Facts(path=MESSAGES, port=port, headers={}, body=body))
    first = chosen.candidates[0] if chosen.candidates else None
    return {
        "model": first.model if first is not None else model,
        "provider": first.provider.name if first is not None else None,
        "provider_set": first is not None,
        "uses_oauth": chosen.rule is None or (first is not None and first.provider.auth in LOGINS),
    }
