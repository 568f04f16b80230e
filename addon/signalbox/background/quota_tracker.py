"""Tracks the quota of accounts: reads it from every answer, checks it before every request, stores it."""

import logging
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from signalbox.background.quota_probe import QuotaProber
from signalbox.config.rules import Provider, Rules
from signalbox.errors import log_error
from signalbox.record import console
from signalbox.routing.budget import Budgets, Used
from signalbox.routing.codex_limits import parse_windows
from signalbox.routing.credentials import Caller, bare
from signalbox.routing.match import NOTHING_KNOWN, QuotaUsage
from signalbox.routing.plan import Plan
from signalbox.routing.quota import DEFAULT, QuotaChange, SharedWindow, following
from signalbox.routing.rate_limit_headers import RateLimitHeaders
from signalbox.state.atomic_file import FileWriter
from signalbox.state.login_files import Login
from signalbox.state.logins import Accounts, ProviderLogins, keychain
from signalbox.state.quota_files import QUOTA_FILE, read_quotas, status_brief, status_file, status_line

log = logging.getLogger("signalbox")


class QuotaTracker:
    """For the event loop. Files are written in a thread."""

    def __init__(
        self, state: Path, rules: Callable[[], Rules], used: Used, *, tls: Callable[[], ssl.SSLContext]
    ) -> None:
        """`rules` gives the rules in force, `used` the tokens for budgets, `tls` the context for probes."""
        self._file = state / QUOTA_FILE
        self._rules = rules
        self._tls = tls
        self.quotas = read_quotas(state)
        self.budgets = Budgets(used)
        self.logins = ProviderLogins(keychain())
        self._accounts = Accounts(self.logins.claude)
        self._files = FileWriter()
        self.prober = QuotaProber(self)

    @property
    def rules(self) -> Rules:
        return self._rules()

    def client_ssl_context(self) -> ssl.SSLContext:
        return self._tls()

    async def read_logins(self, rules: Rules) -> None:
        """Reads the logins that have changed. Called before they decide about a request."""
        await self.logins.read_soon(rules)

    def token(self, provider: Provider) -> str | None:
        """The token of the provider's own login, while it is valid."""
        return self.login(provider).token

    def login(self, provider: Provider) -> Login:
        """The provider's own login, without a token if it is not valid now."""
        return self.logins.of(provider, time.time())

    def account(self, provider: Provider, caller: Caller) -> str:
        """The account that a request of this caller uses at a provider."""
        if not provider.quota.accounts:
            return DEFAULT
        if provider.auth == "client":
            secret = bare(caller.login[1]) if caller.login is not None else None
        else:
            secret = self.token(provider) if provider.uses_login else provider.key
        return self.account_of(provider, secret)

    def account_name(self, provider: Provider | None, caller: Caller) -> str | None:
        """The account that is recorded: a config folder; None where the credential belongs to none."""
        if provider is None:
            return None
        own = str(provider.login) if provider.uses_login else None
        return self.account(provider, caller) or own

    def account_of(self, provider: Provider, secret: str | None) -> str:
        """The account at this provider that a secret belongs to."""
        return self._accounts.of(provider.quota.accounts, secret)

    # availability: login, budget, quota

    def refusal(self, provider: Provider, model: str | None, caller: Caller) -> tuple[str, str] | None:
        """Why this caller's request is not sent to the provider now, as in `plan.RefusalCheck`."""
        now = time.time()
        if (refused := self._refusal(provider, now)) is not None:
            return refused
        return self.quotas.refusal(provider, self.account(provider, caller), model, now)

    def refusal_of_all(self, provider: Provider, model: str | None) -> tuple[str, str] | None:
        """Why no caller's request is sent to the provider now."""
        now = time.time()
        return self._refusal(provider, now) or self.quotas.refusal_of_all(provider, model, now)

    def _refusal(self, provider: Provider, now: float) -> tuple[str, str] | None:
        """The part that holds for all callers and models."""
        without = self.logins.refusal(provider, now)
        return without or self.budgets.refusal(provider, self.rules.week, datetime.fromtimestamp(now, UTC))

    def used(self, rules: Rules, caller: Caller) -> QuotaUsage:
        """The quota usage that conditions of `match.quota` are compared with."""
        if not any(rule.match.quota for rule in rules.rules):
            return NOTHING_KNOWN
        return self.quotas.used(rules, lambda provider: self.account(provider, caller), time.time())

    def remember_credential(self, rules: Rules, chosen: Plan, caller: Caller) -> None:
        """Stores the caller's credential for probes of the providers that may get it."""
        names = {candidate.provider.name for candidate in chosen.candidates} | {
            s.provider for s in chosen.skipped
        }
        for name in names if caller.login is not None else ():
            provider = rules.providers[name]
            if provider.auth == "client" and caller.login is not None:
                self.prober.remember_credential(provider, self.account(provider, caller), caller.login)

    # observation

    def observe_probe(
        self, provider: Provider, account: str, status: int, headers: Mapping[str, str]
    ) -> bool:
        """Takes the answer to a probe of an account. Returns whether it reported any quota."""
        reported = parse_windows(headers, time.time())
        if reported is not None:
            self._update(provider, account, status, reported, provider.quota.probe_model)
        return reported is not None

    def observe(
        self,
        provider: Provider,
        caller: Caller | None,
        status: int,
        headers: Mapping[str, str],
        model: str = "",
    ) -> None:
        """Takes the head of an answer, whose headers may report quota. `model` is the requested model. Never
        raises, so that invalid headers cannot harm the answer."""
        try:
            reported = parse_windows(headers, time.time())
            if reported is not None:
                account = self.account(provider, caller or Caller(()))
                self._update(provider, account, status, reported, model)
        except Exception as error:
            log_error("the quota headers of an answer", error)

    def merge(self, windows: Iterable[SharedWindow]) -> None:
        """Takes what other routers, on other machines, have observed."""
        places = {shared.place[:2] for shared in windows if self.quotas.merge(shared)}
        if not places:
            return
        self.refresh()
        for name, account in sorted(places):
            if (provider := self.rules.providers.get(name)) is not None:
                self._store(provider, account)

    # updates

    def _update(
        self,
        provider: Provider,
        account: str,
        status: int,
        reported: RateLimitHeaders,
        model: str,
    ) -> None:
        now = time.time()
        refused = model if status == 429 and model else None  # a refused model list is about no model
        self.quotas.observe(provider.name, account, reported, now, refused)
        self.refresh()
        self._store(provider, account)

    def _store(self, provider: Provider, account: str) -> None:
        self._files.put(self._file, self.quotas.saved())
        meter = self.quotas.of(provider).get(account)
        if meter is not None and (file := status_file(provider.quota, account)) is not None:
            self._files.put(file, f"{status_line(meter, time.time())}\n".encode())

    def refresh(self) -> None:
        """Logs which providers are skipped from now on and which are available again."""
        rules = self.rules
        changes = self.quotas.settle(rules, time.time())
        for change in changes:
            self._announce(rules, change)
        if changes:
            self._files.put(self._file, self.quotas.saved())
            self.prober.wake()

    def _announce(self, rules: Rules, change: QuotaChange) -> None:
        other = following(rules, change.provider)
        before, after = (change.provider, other) if change.away else (other, change.provider)
        quota = status_brief(self.quotas.of(rules.providers[change.provider])[change.account], time.time())
        family = f" for {change.window}" if change.window else ""
        account = f" of {change.account}" if change.account else ""
        log.warning("%s", console.transition_line(before, after, quota) + family + account)

    def follow(self, rules: Rules) -> None:
        """Called when rules are loaded, at the start and later."""
        self.prober.wake()
        for provider in rules.providers.values():
            self.budgets.refusal(provider, rules.week, datetime.now(UTC))  # reads the usage ahead

    def close(self) -> None:
        """Returns when everything is written."""
        self._files.close()
