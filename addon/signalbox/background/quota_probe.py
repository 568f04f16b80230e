"""Probes the quota of skipped accounts with the cheapest request: count_tokens.

The headers of its response report the quota, like those of any other request. A probe uses the `probe_key`,
the provider's own key, or the credential that a caller sent last. The latter is kept in memory only, and sent
only to the same provider.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

import msgspec

from signalbox import __version__
from signalbox.anthropic import betas
from signalbox.anthropic.api import COUNT_TOKENS
from signalbox.anthropic.json_edit import Body
from signalbox.background.http_client import http_client
from signalbox.config.fields import Url
from signalbox.config.rules import Provider, Rules, Target
from signalbox.errors import log_error
from signalbox.routing.credentials import Headers
from signalbox.routing.facts import Facts
from signalbox.routing.outgoing import BETA, Incoming, Outgoing, ProviderConstraints
from signalbox.routing.plan import Candidate
from signalbox.routing.prepare import prepare_messages
from signalbox.routing.quota import Quotas

log = logging.getLogger("signalbox")

TIMEOUT = 10.0
"""Seconds for the head of a response."""
FAILURES = 3
"""After this many consecutive probes without a report of quota, each further one doubles the interval."""
LONGEST = 3600.0
"""Seconds of the longest interval between two probes."""
LOOK = 30.0
"""Seconds after which the clock is read again: a machine that slept may have missed a reset."""

_OAUTH_TOKEN = "sk-ant-oat"  # noqa: S105 (the prefix of every login's token, not one of them)


class Account(NamedTuple):
    provider: str
    name: str


class Credential(NamedTuple):
    """The header with which a caller authenticated itself to the provider at `url`."""

    url: Url
    name: str
    value: str


class ProbeSchedule(msgspec.Struct):
    """The schedule of one skipped account. Times are seconds of the monotonic clock."""

    last: float
    """When it was last probed, or when it was skipped."""
    failures: int = 0

    def due(self, interval: float) -> float:
        doublings = max(0, self.failures - FAILURES + 1)
        return self.last + min(interval * 2.0 ** min(doublings, 30), max(LONGEST, interval))


class Tracker(Protocol):
    """The part of `quota_tracker.QuotaTracker` that a prober uses."""

    quotas: Quotas

    @property
    def rules(self) -> Rules: ...
    async def read_logins(self, rules: Rules) -> None: ...
    def account_of(self, provider: Provider, secret: str | None) -> str: ...
    def token(self, provider: Provider) -> str | None: ...
    def observe_probe(
        self, provider: Provider, account: str, status: int, headers: Mapping[str, str]
    ) -> bool: ...
    def refresh(self) -> None: ...
    def client_ssl_context(self) -> ssl.SSLContext: ...


class QuotaProber:
    def __init__(self, tracker: Tracker, *, timeout: float = TIMEOUT) -> None:
        """`timeout`: seconds for the head of a response."""
        self._timeout = timeout
        self._tracker = tracker
        self._quotas = tracker.quotas
        self._last: dict[Account, Credential] = {}
        self.schedules: dict[Account, ProbeSchedule] = {}
        """The schedules of the accounts that are probed now."""
        self._changed = asyncio.Event()

    def remember_credential(self, provider: Provider, account: str, header: tuple[str, str]) -> None:
        """Stores a caller's credential that this provider may get."""
        who, credential = Account(provider.name, account), Credential(provider.url, *header)
        if self._last.get(who) != credential:
            self._last[who] = credential
            if (schedule := self.schedules.get(who)) is not None:
                schedule.failures = 0
            self.wake()

    def wake(self) -> None:
        """Called when quota or rules have changed: the accounts to probe are determined again."""
        self._changed.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self._round()
            except Exception as error:  # the next round must still run
                log_error("the probe of quota", error)
                await asyncio.sleep(LOOK)

    async def _round(self) -> None:
        """Probes the accounts that are due, or waits for the next one."""
        self._changed.clear()
        await self._tracker.read_logins(self._tracker.rules)
        self._tracker.refresh()
        now = time.monotonic()
        away = self.update_schedules(now)
        at = {who: self.schedules[who].due(provider.quota.probe) for who, provider in away.items()}
        due = {who: provider for who, provider in away.items() if at[who] <= now}
        if due:
            # In a thread: reading the certificate authorities takes a while.
            tls = await asyncio.to_thread(self._tracker.client_ssl_context)
            await asyncio.gather(*(self._probe(provider, who, tls) for who, provider in due.items()))
        else:
            delay = min(at.values(), default=now + LOOK) - now
            await self._sleep(min(delay, self._until_reset(), LOOK))

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(seconds, 0.0)):
                await self._changed.wait()
        except TimeoutError:
            return

    def _until_reset(self) -> float:
        now = time.time()
        resets = (
            reset
            for provider in self._tracker.rules.providers.values()
            for meter in self._quotas.of(provider).values()
            if (reset := meter.next_reset(now)) is not None
        )
        return min((reset - now for reset in resets), default=LOOK)

    def update_schedules(self, now: float) -> dict[Account, Provider]:
        """The accounts to probe from now on. A schedule exists as long as its account is skipped and there is
        a credential for a probe."""
        away = {who: provider for who, provider in self._away() if self._credential(provider, who.name)}
        self.schedules = {who: self.schedules.get(who) or ProbeSchedule(now) for who in away}
        return away

    def _away(self) -> Iterator[tuple[Account, Provider]]:
        """The accounts skipped for all models. A probe does not report the windows of one family of
        models."""
        rules = self._tracker.rules
        for provider in rules.providers.values() if rules.rules else ():
            for account, meter in self._quotas.of(provider).items():
                if "" in meter.held and provider.quota.probe > 0 and _may_be_probed(provider):
                    yield Account(provider.name, account), provider

    def _credential(self, provider: Provider, account: str) -> tuple[Headers, str | None] | None:
        """The caller's headers to send, and the provider's own key or token; None if there is neither."""
        key = provider.quota.probe_key
        if key is not None and key.value and self._tracker.account_of(provider, key.value) == account:
            return (_as_header(key.value), None) if provider.auth == "client" else ((), key.value)
        if provider.auth == "client":
            last = self._last.get(Account(provider.name, account))
            return None if last is None or last.url != provider.url else (((last.name, last.value),), None)
        token = self._tracker.token(provider) if provider.uses_login else provider.key
        return None if token is None and provider.auth != "none" else ((), token)

    async def _probe(self, provider: Provider, who: Account, tls: ssl.SSLContext) -> None:
        schedule = self.schedules[who]
        schedule.last = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout):
                reported = await self._ask(provider, who.name, tls)
        except Exception as error:  # any error: nothing was reported
            log.debug("probe of %s: %s", provider.name, type(error).__name__)
            reported = False
        schedule.failures = 0 if reported else schedule.failures + 1

    async def _ask(self, provider: Provider, account: str, tls: ssl.SSLContext) -> bool:
        """Sends a probe. Returns whether the response reported the account's quota."""
        credential = self._credential(provider, account)
        assert credential is not None
        outgoing = probe_request(provider, *credential)
        url = f"{provider.url.scheme}://{provider.url.authority}{outgoing.path}"
        async with (
            await http_client(provider, tls, self._timeout) as client,
            client.stream("POST", url, headers=list(outgoing.headers), content=outgoing.body) as answer,
        ):
            log.debug("probe of %s: %s", provider.name, answer.status_code)
            return self._tracker.observe_probe(provider, account, answer.status_code, answer.headers)


def _may_be_probed(provider: Provider) -> bool:
    """Anthropic itself, and providers for which the user set `quota`, such as gateways that report windows.
    Codex's backend counts no tokens: its windows come back when they reset."""
    reports = provider.is_anthropic or provider.quota.status_file is not None
    return reports and provider.auth != "codex-login"


def _as_header(key: str) -> Headers:
    """The header in which Anthropic expects a login's token, or a key (anthropic-messages.md, 1)."""
    return (("authorization", f"Bearer {key}") if key.startswith(_OAUTH_TOKEN) else ("x-api-key", key),)


def probe_request(provider: Provider, login: Headers, key: str | None) -> Outgoing:
    """A probe, prepared like any other request to this provider."""
    model = provider.quota.probe_model
    question = {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
    body = Body.parse(msgspec.json.encode(question))
    headers: Headers = (
        ("content-type", "application/json"),
        ("anthropic-version", "2023-06-01"),
        ("user-agent", f"signalbox/{__version__}"),
        *login,
    )
    if any(_OAUTH_TOKEN in value for _, value in login):
        headers = (*headers, (BETA, betas.OAUTH))
    return prepare_messages(
        Candidate(provider, Target(provider.name), model),
        Facts(path=COUNT_TOKENS, port=0, headers={}, body=body),
        Incoming(COUNT_TOKENS, headers, body.raw, body),
        key=key,
        constraints=ProviderConstraints(lambda _: None),
        is_only_candidate=True,
    )
