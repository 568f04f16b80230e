"""Quota: providers that are skipped because their plan is used up, or nearly so (marks, hysteresis, windows).

Each account of a provider has windows of its own. No clock here: `now` is unix seconds, because resets are
given in these and the state outlives the process.
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
"""Windows that are always shown, in this order; an unknown one is shown as unused."""
MOST = 32
"""Other windows of one account that are remembered. Bounded, since their names come from outside."""

DEFAULT = ""
"""The account of all credentials that belong to no configured account."""


class Meter(msgspec.Struct):
    """The windows of one account, and the models for which it is skipped."""

    windows: dict[str, Window] = {}
    claim: str = ""
    """The window that decides, by the name that Anthropic gave last."""
    covered: bool = False
    """Whether extra usage lets requests through beyond a window that is used up."""
    heard: UnixTime = 0.0
    held: frozenset[str] = frozenset()
    """The models for which it is skipped, as of the last `settle`: `""` for all, else the window of a
    family."""

    def observe(self, headers: RateLimitHeaders, now: float, refused: str | None = None) -> None:
        """Takes the headers of an answer; `refused` is the model as sent, if the answer is a 429."""
        is_open = bool(headers.overall) and not rate_limit_headers.is_shut(headers.overall)
        for name in dict.fromkeys([*self.windows, *headers.status, *headers.percent, *headers.reset]):
            if name in self.windows or name in ALWAYS or len(self.windows) < MOST:
                window = self.windows.get(name, Window()).updated(name, headers, now, refused)
                lifts = is_open and name not in headers.status and rate_limit_headers.family(name) is None
                self.windows[name] = window.lifted(now) if lifts and window.is_rejected else window
        if headers.overall or OVERAGE in headers.status:
            extra = headers.overage_in_use or headers.status.get(OVERAGE, "").startswith("allowed")
            self.covered = extra and not rate_limit_headers.is_shut(headers.overall)
        self.claim = headers.claim or self.claim
        self.heard = now

    def shown(self, now: float) -> dict[str, Window]:
        """All windows as of `now`, first those of `ALWAYS`."""
        names = dict.fromkeys((*ALWAYS, *sorted(self.windows)))
        return {name: self.windows.get(name, Window()).at(now) for name in names}

    def holds(self, policy: Quota, now: float) -> dict[str, str]:
        """The models for which it is skipped now, as in `held`, and the window that causes it: of several the
        one that resets last."""
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
        """Whether an answer reported the window as used up. Without `redirect_at` only a 429 counts."""
        if name == OVERAGE or not window.is_rejected or self.covered:
            return False
        return bool(policy.redirect_at or window.refused)

    def settle(self, policy: Quota, now: float) -> list[tuple[str, bool]]:
        """The changes since the last call: (scope as in `held`, whether it is skipped now)."""
        before, self.held = self.held, frozenset(self.holds(policy, now))
        return [(scope, scope in self.held) for scope in sorted(before ^ self.held)]

    def refusal(self, policy: Quota, model: str | None, now: float) -> tuple[str, str] | None:
        """Why a request for this model is not sent there, as in `plan.RefusalCheck`."""
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
        """When the next window resets; None if the account is not skipped."""
        ahead = [window.until for window in self.windows.values() if window.until > now]
        return min(ahead, default=None) if self.held else None


class SharedWindow(NamedTuple):
    """A window of an account, as routers share it; with an empty name the account itself."""

    provider: str
    account: str
    name: str
    heard: float
    state: bytes
    """`Window` or `_Account` as JSON."""

    @property
    def place(self) -> tuple[str, str, str]:
        return self.provider, self.account, self.name


class _Account(msgspec.Struct):
    """The state of a `Meter` besides its windows."""

    claim: str = ""
    covered: bool = False
    held: frozenset[str] = frozenset()


class QuotaChange(NamedTuple):
    """An account is skipped from now on (`away`), or is asked again."""

    provider: str
    account: str
    away: bool
    window: str
    """The window of the family of models that it holds for; empty for all models."""


type AccountOf = Callable[[Provider], str]
"""Gives the account that a request would use at a provider."""


class Quotas:
    """The meters of all accounts, by provider and account.

    If a provider has several keys, each has a plan of its own: a used-up key gets a cooldown (`health`), and
    the meters here are only shown.
    """

    def __init__(self, saved: bytes = b"") -> None:
        """`saved` is the result of `saved()`; anything else is ignored."""
        self._meters: dict[str, dict[str, Meter]] = {}
        with suppress(msgspec.DecodeError, RecursionError):
            self._meters = msgspec.json.decode(saved, type=dict[str, dict[str, Meter]])

    def saved(self) -> bytes:
        """All meters as JSON, which holds no credential."""
        return msgspec.json.encode(self._meters)

    def observe(
        self, provider: str, account: str, headers: RateLimitHeaders, now: float, refused: str | None = None
    ) -> Meter:
        meter = self._meters.setdefault(provider, {}).setdefault(account, Meter())
        meter.observe(headers, now, refused)
        return meter

    def shared(self, known: Mapping[tuple[str, str, str], float]) -> Iterator[SharedWindow]:
        """The windows that were observed later than `known`, which has Unix seconds by place."""
        for provider, account, meter in self.all():
            place = provider, account, ""
            if meter.heard > known.get(place, 0.0):
                state = _Account(meter.claim, meter.covered, meter.held)
                yield SharedWindow(*place, meter.heard, msgspec.json.encode(state))
            for name, window in meter.windows.items():
                if window.heard > known.get((provider, account, name), 0.0):
                    yield SharedWindow(provider, account, name, window.heard, msgspec.json.encode(window))

    def merge(self, shared: SharedWindow) -> bool:
        """Takes what another router observed of a window, if that is newer. Returns whether it was."""
        provider, account, name, heard, state = shared
        meter = self._meters.setdefault(provider, {}).setdefault(account, Meter())
        known = meter.heard if not name else meter.windows.get(name, Window()).heard
        if heard <= known:
            return False
        try:
            if name:
                if name in meter.windows or len(meter.windows) < MOST + len(ALWAYS):
                    meter.windows[name] = msgspec.json.decode(state, type=Window)
                return True
            account_state = msgspec.json.decode(state, type=_Account)
        except msgspec.MsgspecError:  # from a router of another version
            return False
        if not meter.heard:
            meter.held = account_state.held
        meter.claim, meter.covered, meter.heard = account_state.claim, account_state.covered, heard
        return True

    def of(self, provider: Provider) -> Mapping[str, Meter]:
        """The known meters of the provider's accounts. Meters of accounts that are not in the rules are kept,
        in case the rules name them again."""
        accounts = {DEFAULT, *map(str, provider.quota.accounts)}
        return {name: one for name, one in self._meters.get(provider.name, {}).items() if name in accounts}

    def all(self) -> Iterator[tuple[str, str, Meter]]:
        """(provider, account, meter) of all that are known."""
        for provider, accounts in self._meters.items():
            for account, meter in accounts.items():
                yield provider, account, meter

    def percents(self, now: float) -> dict[tuple[str, str], dict[str, float]]:
        """By provider and account, the percent used of each window."""
        return {
            (provider, account): {name: window.percent for name, window in meter.shown(now).items()}
            for provider, account, meter in self.all()
        }

    def settle(self, rules: Rules, now: float) -> list[QuotaChange]:
        """The changes since the last call, by answers or because a reset has passed."""
        return [
            QuotaChange(provider.name, account, away, scope)
            for provider in rules.providers.values()
            for account, meter in self.of(provider).items()
            for scope, away in (meter.settle(provider.quota, now) if _is_one(provider) else ())
        ]

    def refusal(
        self, provider: Provider, account: str, model: str | None, now: float
    ) -> tuple[str, str] | None:
        """Why this account is not asked now, as in `plan.RefusalCheck`."""
        meter = self.of(provider).get(account) if _is_one(provider) else None
        return meter.refusal(provider.quota, model, now) if meter is not None else None

    def refusal_of_all(self, provider: Provider, model: str | None, now: float) -> tuple[str, str] | None:
        """Why none of its accounts is asked now; None if one may be asked. An unknown account may be
        asked."""
        accounts = {*map(str, provider.quota.accounts), *self.of(provider)} or {DEFAULT}
        refusals = [self.refusal(provider, account, model, now) for account in sorted(accounts)]
        return None if None in refusals else refusals[0]

    def used(self, rules: Rules, account_of: AccountOf, now: float) -> dict[tuple[str, str], float]:
        """Percent used of each known window, as `match.QuotaUsage`."""
        return {
            (provider.name, name): window.at(now).percent
            for provider in rules.providers.values()
            if (meter := self.of(provider).get(account_of(provider))) is not None
            for name, window in meter.windows.items()
        }


def following(rules: Rules, provider: str) -> str:
    """What answers instead of a provider: the next target, or `reject`, in the first rule that has one after
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
