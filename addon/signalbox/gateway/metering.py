"""What each account still allows: heard from every answer, asked before every request, kept in files."""

import logging
import ssl
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from mitmproxy import http

from signalbox.background.quota_probe import QuotaProber
from signalbox.config.rules import Provider, Rules
from signalbox.errors import log_error
from signalbox.exchange import Exchange
from signalbox.proxy.dispatch import upstream
from signalbox.proxy.headers import plain_headers
from signalbox.record import console
from signalbox.routing.budget import Budgets, Used
from signalbox.routing.credentials import Caller, bare
from signalbox.routing.match import NOTHING_KNOWN, Quota
from signalbox.routing.plan import Plan
from signalbox.routing.quota import DEFAULT, Change, following
from signalbox.routing.rate_limit_headers import RateLimitHeaders, read
from signalbox.state.atomic_file import FileWriter
from signalbox.state.logins import Accounts, Logins, keychain
from signalbox.state.quota_files import QUOTA_FILE, read_quotas, status_brief, status_file, status_line

log = logging.getLogger("signalbox")


class Metering:
    """For the event loop; files are written in a thread."""

    def __init__(
        self, state: Path, rules: Callable[[], Rules], used: Used, *, tls: Callable[[], ssl.SSLContext]
    ) -> None:
        """`used` tells the tokens that budgets are made of."""
        self._file = state / QUOTA_FILE
        self._rules = rules
        self.quotas = read_quotas(state)
        self.budgets = Budgets(used)
        self.logins = Logins(keychain())
        self._accounts = Accounts(self.logins)
        self._files = FileWriter()
        self.prober = QuotaProber(
            self.quotas,
            rules=rules,
            account_of=lambda provider, secret: self._accounts.of(provider.quota.accounts, secret),
            token_of=self.token,
            hear=self._hear_probe,
            settle=self._settle,
            tls=tls,
        )

    def token(self, provider: Provider) -> str | None:
        """Of the provider's own login, as long as it is valid."""
        return self.logins.of(provider.login, time.time()).token

    def account(self, provider: Provider, caller: Caller) -> str:
        """The account that a request of this caller uses there."""
        if not provider.quota.accounts:
            return DEFAULT
        if provider.auth == "client":
            secret = bare(caller.login[1]) if caller.login is not None else None
        else:
            secret = self.token(provider) if provider.auth == "claude-login" else provider.key
        return self._accounts.of(provider.quota.accounts, secret)

    # before a request

    def refusal(self, provider: Provider, model: str | None, caller: Caller) -> tuple[str, str] | None:
        """Why this caller's request is not sent there now, as in `plan.Refusal`."""
        now = time.time()
        if (refused := self._refusal(provider, now)) is not None:
            return refused
        return self.quotas.refusal(provider, self.account(provider, caller), model, now)

    def refusal_of_all(self, provider: Provider, model: str | None) -> tuple[str, str] | None:
        """Why nobody's request is sent there now."""
        now = time.time()
        return self._refusal(provider, now) or self.quotas.refusal_of_all(provider, model, now)

    def _refusal(self, provider: Provider, now: float) -> tuple[str, str] | None:
        """What goes for all callers and models."""
        without = self.logins.refusal(provider, now)
        return without or self.budgets.refusal(provider, self._rules().week, datetime.fromtimestamp(now, UTC))

    def used(self, rules: Rules, caller: Caller) -> Quota:
        """What `match.quota` goes by."""
        if not any(rule.match.quota for rule in rules.rules):
            return NOTHING_KNOWN
        return self.quotas.used(rules, lambda provider: self.account(provider, caller), time.time())

    def saw(self, rules: Rules, chosen: Plan, caller: Caller) -> None:
        """Keep the caller's credential for a probe of those who might have got it."""
        names = {candidate.provider.name for candidate in chosen.candidates} | {
            s.provider for s in chosen.skipped
        }
        for name in names if caller.login is not None else ():
            provider = rules.providers[name]
            if provider.auth == "client" and caller.login is not None:
                self.prober.remember_credential(provider, self.account(provider, caller), caller.login)

    # after its head has come back

    def hear(self, exchange: Exchange, status: int, headers: Mapping[str, str]) -> None:
        """An answer of an attempt, as `Exchange.listener`. Counting tokens has limits of its own: that it is
        refused says nothing of messages."""
        if exchange.provider is not None and (exchange.kind == "messages" or status < 400):
            self._hear(exchange.provider, exchange.caller, status, headers, exchange.model or "")

    def hear_pipe(self, flow: http.HTTPFlow, exchange: Exchange) -> None:
        """An answer that passes through untouched."""
        if (answer := flow.response) is not None:
            provider = upstream(flow, exchange.rules)
            self._hear(provider, exchange.caller, answer.status_code, plain_headers(answer))

    def hear_list(
        self, provider: Provider, caller: Caller | None, status: int, headers: Mapping[str, str]
    ) -> None:
        """An answer to a request of our own for a model list."""
        self._hear(provider, caller or Caller(()), status, headers)

    def _hear_probe(self, provider: Provider, account: str, status: int, headers: Mapping[str, str]) -> bool:
        """Says whether it told anything."""
        told = read(headers, time.time())
        if told is not None:
            self._take(provider, account, status, told, provider.quota.probe_model)
        return told is not None

    def _hear(
        self, provider: Provider, caller: Caller, status: int, headers: Mapping[str, str], model: str = ""
    ) -> None:
        """Whatever is wrong with it must not harm the answer."""
        try:
            told = read(headers, time.time())
            if told is not None:
                self._take(provider, self.account(provider, caller), status, told, model)
        except Exception as error:
            log_error("the quota headers of an answer", error)

    def _take(
        self,
        provider: Provider,
        account: str,
        status: int,
        told: RateLimitHeaders,
        model: str,
    ) -> None:
        now = time.time()
        refused = model if status == 429 and model else None  # a model list's refusal is that of no model
        meter = self.quotas.hear(provider.name, account, told, now, refused)
        self._settle()
        self._files.put(self._file, self.quotas.saved())
        if (file := status_file(provider.quota, account)) is not None:
            self._files.put(file, f"{status_line(meter, now)}\n".encode())

    def _settle(self) -> None:
        """Tell who is passed over from now on, and who is asked again."""
        rules = self._rules()
        changes = self.quotas.settle(rules, time.time())
        for change in changes:
            self._tell(rules, change)
        if changes:
            self._files.put(self._file, self.quotas.saved())
            self.prober.wake()

    def _tell(self, rules: Rules, change: Change) -> None:
        other = following(rules, change.provider)
        before, after = (change.provider, other) if change.away else (other, change.provider)
        stand = status_brief(self.quotas.of(rules.providers[change.provider])[change.account], time.time())
        family = f" for {change.window}" if change.window else ""
        account = f" of {change.account}" if change.account else ""
        log.warning("%s", console.transition_line(before, after, stand) + family + account)

    def follow(self, rules: Rules) -> None:
        """The rules have changed."""
        self.prober.wake()
        for provider in rules.providers.values():
            self.budgets.refusal(provider, rules.week, datetime.now(UTC))  # what was used is read ahead

    def close(self) -> None:
        """Returns when all is written."""
        self._files.close()
