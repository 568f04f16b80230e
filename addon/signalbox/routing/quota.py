"""Quota: providers that are skipped because their plan is used up, or nearly so (marks, hysteresis, windows).

Each account of a provider has windows of its own. No clock here: `now` is unix seconds, for resets are told
in these, and a state outlives the process.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple

import msgspec

from signalbox.config.rules import Provider, Quota, Rules
from signalbox.routing import rate_limit_headers
from signalbox.routing.health import span
from signalbox.routing.rate_limit_headers import OVERAGE, RateLimitHeaders, UnixTime, Window

ALWAYS = ("5h", "7d", OVERAGE)
"""Windows that are shown always, in this order, as never used where nothing is known of them."""
MOST = 32
"""Windows of one account that are remembered, beside these: their names come from outside."""

DEFAULT = ""
"""The account of all credentials that belong to no other."""


class Meter(msgspec.Struct):
    """One account: its windows, and for which models it is skipped."""

    windows: dict[str, Window] = {}
    claim: str = ""
    """The window that decides, as Anthropic last called it."""
    covered: bool = False
    """Whether extra usage lets requests through beyond a window that is used up."""
    heard: UnixTime = 0.0
    held: frozenset[str] = frozenset()
    """For which models it is skipped since it was last settled: `""` for all, else a family's window."""

    def hear(self, told: RateLimitHeaders, now: float, refused: str | None = None) -> None:
        """One more answer; `refused` is the model as sent, where it was refused with a 429."""
        is_open = bool(told.overall) and not rate_limit_headers.is_shut(told.overall)
        for name in dict.fromkeys([*self.windows, *told.status, *told.percent, *told.reset]):
            if name in self.windows or name in ALWAYS or len(self.windows) < MOST:
                window = self.windows.get(name, Window()).updated(name, told, now, refused)
                lifts = is_open and name not in told.status and rate_limit_headers.family(name) is None
                self.windows[name] = window.lifted() if lifts and window.is_rejected else window
        if told.overall or OVERAGE in told.status:
            extra = told.overage_in_use or told.status.get(OVERAGE, "").startswith("allowed")
            self.covered = extra and not rate_limit_headers.is_shut(told.overall)
        self.claim = told.claim or self.claim
        self.heard = now

    def shown(self, now: float) -> dict[str, Window]:
        """All windows as they count now: first those that are shown always."""
        names = dict.fromkeys((*ALWAYS, *sorted(self.windows)))
        return {name: self.windows.get(name, Window()).at(now) for name in names}

    def holds(self, policy: Quota, now: float) -> dict[str, str]:
        """For which models it is skipped now, as in `held`, and the window because of which: where there are
        several the one that is open again last."""
        found: dict[str, str] = {}
        for name in sorted(self.windows, key=lambda name: self.windows[name].until):
            scope = _scope(name)
            if self._is_over(name, policy, now, is_held=scope in self.held):
                found[scope] = name
        return found

    def _is_over(self, name: str, policy: Quota, now: float, *, is_held: bool) -> bool:
        window = self.windows[name].at(now)
        if self._is_spent(name, window, policy):
            return True
        mark = policy.redirect_at.get(name)
        if mark is None:
            return False
        return window.percent >= mark or (is_held and 0 < window.percent >= mark - policy.hysteresis)

    def _is_spent(self, name: str, window: Window, policy: Quota) -> bool:
        """Used up, as an answer said. Where the provider is only watched it takes a refusal to count."""
        if name == OVERAGE or not window.is_rejected or self.covered:
            return False
        return bool(policy.redirect_at or window.refused)

    def settle(self, policy: Quota, now: float) -> list[tuple[str, bool]]:
        """What has changed since the last time: (scope as in `held`, whether it is skipped now)."""
        before, self.held = self.held, frozenset(self.holds(policy, now))
        return [(scope, scope in self.held) for scope in sorted(before ^ self.held)]

    def refusal(self, policy: Quota, model: str | None, now: float) -> tuple[str, str] | None:
        """Why a request for this model is not sent there, as in `plan.Refusal`."""
        holds = self.holds(policy, now)
        binding = [name for scope, name in holds.items() if not scope or self._binds(scope, model)]
        if not binding:
            return None
        name = max(binding, key=lambda name: self.windows[name].until)
        window, mark = self.windows[name], policy.redirect_at.get(name, 0)
        back = "" if window.percent >= mark else f", back below {mark - policy.hysteresis}%"
        used = "used up" if window.is_rejected else f"at {window.percent:g}%, its mark is {mark}%{back}"
        until = f", resets in {span(window.reset - now)}" if window.reset is not None else ""
        return f"quota:{name}", f"{name} is {used}{until}"

    def _binds(self, window: str, model: str | None) -> bool:
        name = rate_limit_headers.family(window)
        if model is None or name is None:
            return False
        return rate_limit_headers.is_of_family(model, name) or model in self.windows[window].refused

    def next_reset(self, now: float) -> float | None:
        """When the next of the windows that may keep it away is open again."""
        ahead = [window.until for window in self.windows.values() if window.until > now]
        return min(ahead, default=None) if self.held else None


class QuotaChange(NamedTuple):
    """An account is skipped from now on, or is asked again."""

    provider: str
    account: str
    away: bool
    window: str
    """Of the family for which; empty for all models."""


type AccountOf = Callable[[Provider], str]
"""Tells the account that a request would use at a provider."""


class Quotas:
    """The meters of all accounts, by provider and account.

    Where a provider has several keys, each is one plan: a used-up key has a cooldown of its own (`health`),
    and what is known here is shown only.
    """

    def __init__(self, saved: bytes = b"") -> None:
        """`saved` is what `saved()` gave; anything else counts as nothing known."""
        self._meters: dict[str, dict[str, Meter]] = {}
        with suppress(msgspec.DecodeError, RecursionError):
            self._meters = msgspec.json.decode(saved, type=dict[str, dict[str, Meter]])

    def saved(self) -> bytes:
        """All of it as JSON. No credential is in it."""
        return msgspec.json.encode(self._meters)

    def hear(
        self, provider: str, account: str, told: RateLimitHeaders, now: float, refused: str | None = None
    ) -> Meter:
        meter = self._meters.setdefault(provider, {}).setdefault(account, Meter())
        meter.hear(told, now, refused)
        return meter

    def of(self, provider: Provider) -> Mapping[str, Meter]:
        """By account, for those of its accounts that were heard of. What is known of others waits until the
        rules name them again."""
        accounts = {DEFAULT, *map(str, provider.quota.accounts)}
        return {name: one for name, one in self._meters.get(provider.name, {}).items() if name in accounts}

    def all(self) -> Iterator[tuple[str, str, Meter]]:
        """(provider, account, its meter) of all that were heard of."""
        for provider, accounts in self._meters.items():
            for account, meter in accounts.items():
                yield provider, account, meter

    def settle(self, rules: Rules, now: float) -> list[QuotaChange]:
        """What has changed since the last time, by answers or because a reset has passed."""
        return [
            QuotaChange(provider.name, account, away, scope)
            for provider in rules.providers.values()
            for account, meter in self.of(provider).items()
            for scope, away in (meter.settle(provider.quota, now) if _is_one(provider) else ())
        ]

    def refusal(
        self, provider: Provider, account: str, model: str | None, now: float
    ) -> tuple[str, str] | None:
        """Why this account is not asked now, as in `plan.Refusal`."""
        meter = self.of(provider).get(account) if _is_one(provider) else None
        return meter.refusal(provider.quota, model, now) if meter is not None else None

    def refusal_of_all(self, provider: Provider, model: str | None, now: float) -> tuple[str, str] | None:
        """Why none of its accounts is asked now; one of which nothing was heard may be."""
        accounts = {*map(str, provider.quota.accounts), *self.of(provider)} or {DEFAULT}
        refusals = [self.refusal(provider, account, model, now) for account in sorted(accounts)]
        return None if None in refusals else refusals[0]

    def used(self, rules: Rules, account_of: AccountOf, now: float) -> dict[tuple[str, str], float]:
        """Percent used of each window that was heard of, as `match.Quota` wants it."""
        return {
            (provider.name, name): window.at(now).percent
            for provider in rules.providers.values()
            if (meter := self.of(provider).get(account_of(provider))) is not None
            for name, window in meter.windows.items()
        }


def following(rules: Rules, provider: str) -> str:
    """Who answers in a provider's place: the next target, or `reject`, in the first rule that has one after
    it (the contract, section 6); else `none`."""
    for rule in rules.rules:
        names = [target.provider for equals in rule.choices for target in equals]
        if provider in names:
            after = [name for name in names[names.index(provider) :] if name != provider]
            if after or rule.reject is not None:
                return after[0] if after else "reject"
    return "none"


def _scope(window: str) -> str:
    return window if rate_limit_headers.family(window) is not None else ""


def _is_one(provider: Provider) -> bool:
    return len(provider.keys) <= 1
