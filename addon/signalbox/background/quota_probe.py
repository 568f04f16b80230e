"""Asks accounts that are passed over how they stand, by the cheapest request there is: count_tokens.

Answers tell it in their headers, as those of all other requests do. An account is asked with a key of the
user's, the provider's own, or the credential that was last to go there. It is kept in memory only and sent
nowhere but to that provider.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

import httpx
import msgspec

from signalbox import __version__
from signalbox.anthropic import betas
from signalbox.anthropic.api import COUNT_TOKENS
from signalbox.anthropic.json_edit import Body
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

PATIENCE = 10.0
"""Seconds for an answer's head."""
FAILURES = 3
"""After so many in a row, with nothing told, it asks half as often each time."""
LONGEST = 3600.0
"""Seconds between two probes at the most."""
LOOK = 30.0
"""Seconds after which the clock is looked at again: a machine that slept may have missed a reset."""

_OAUTH_TOKEN = "sk-ant-oat"  # noqa: S105 (the prefix of every login's token, not one of them)


class Account(NamedTuple):
    provider: str
    name: str


class Credential(NamedTuple):
    """The header by which a caller proved itself, for the provider that was at `url`."""

    url: Url
    name: str
    value: str


class _Course(msgspec.Struct):
    """Of one account while it is passed over. Times are seconds of the monotonic clock."""

    last: float
    """When it was last asked, or became one to ask."""
    failures: int = 0

    def due(self, interval: float) -> float:
        doublings = max(0, self.failures - FAILURES + 1)
        return self.last + min(interval * 2.0 ** min(doublings, 30), max(LONGEST, interval))


class Tracker(Protocol):
    """What a prober asks and reports to; `quota_tracker.QuotaTracker`."""

    quotas: Quotas

    @property
    def rules(self) -> Rules: ...
    def account_of(self, provider: Provider, secret: str | None) -> str: ...
    def token(self, provider: Provider) -> str | None: ...
    def observe_probe(
        self, provider: Provider, account: str, status: int, headers: Mapping[str, str]
    ) -> bool: ...
    def refresh(self) -> None: ...
    def client_ssl_context(self) -> ssl.SSLContext: ...


class QuotaProber:
    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._quotas = tracker.quotas
        self._last: dict[Account, Credential] = {}
        self._courses: dict[Account, _Course] = {}
        self._news = asyncio.Event()

    def remember_credential(self, provider: Provider, account: str, header: tuple[str, str]) -> None:
        """A caller's credential that this provider may get."""
        who, credential = Account(provider.name, account), Credential(provider.url, *header)
        if self._last.get(who) != credential:
            self._last[who] = credential
            if (course := self._courses.get(who)) is not None:
                course.failures = 0
            self.wake()

    def wake(self) -> None:
        """Somebody may be passed over from now on, or not any more, or by other rules."""
        self._news.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self._round()
            except Exception as error:  # others run beside it, and so must the next round
                log_error("the probe of quota", error)
                await asyncio.sleep(LOOK)

    async def _round(self) -> None:
        """Probe who is due, else wait for the next one."""
        self._news.clear()
        self._tracker.refresh()
        now = time.monotonic()
        away = self._follow(now)
        at = {who: self._courses[who].due(provider.quota.probe) for who, provider in away.items()}
        due = {who: provider for who, provider in away.items() if at[who] <= now}
        if due:
            tls = await asyncio.to_thread(
                self._tracker.client_ssl_context
            )  # reading all the authorities takes a while
            await asyncio.gather(*(self._probe(provider, who, tls) for who, provider in due.items()))
        else:
            delay = min(at.values(), default=now + LOOK) - now
            await self._sleep(min(delay, self._until_reset(), LOOK))

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(seconds, 0.0)):
                await self._news.wait()
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

    def _follow(self, now: float) -> dict[Account, Provider]:
        """Whom to probe from now on. A course begins when one can be asked first, and ends with that."""
        away = {who: provider for who, provider in self._away() if self._credential(provider, who.name)}
        self._courses = {who: self._courses.get(who) or _Course(now) for who in away}
        return away

    def _away(self) -> Iterator[tuple[Account, Provider]]:
        """Those that are passed over for all models; the windows of one family this request cannot tell."""
        rules = self._tracker.rules
        for provider in rules.providers.values() if rules.rules else ():
            for account, meter in self._quotas.of(provider).items():
                if "" in meter.held and provider.quota.probe > 0 and _may_be_probed(provider):
                    yield Account(provider.name, account), provider

    def _credential(self, provider: Provider, account: str) -> tuple[Headers, str | None] | None:
        """The caller's headers to send, and the provider's own key or token; None where there is neither."""
        key = provider.quota.probe_key
        if key is not None and key.value and self._tracker.account_of(provider, key.value) == account:
            return (_as_header(key.value), None) if provider.auth == "client" else ((), key.value)
        if provider.auth == "client":
            last = self._last.get(Account(provider.name, account))
            return None if last is None or last.url != provider.url else (((last.name, last.value),), None)
        token = self._tracker.token(provider) if provider.auth == "claude-login" else provider.key
        return None if token is None and provider.auth != "none" else ((), token)

    async def _probe(self, provider: Provider, who: Account, tls: ssl.SSLContext) -> None:
        course = self._courses[who]
        course.last = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE):
                told = await self._ask(provider, who.name, tls)
        except Exception as fault:  # whatever it is: it has told nothing
            log.debug("probe of %s: %s", provider.name, type(fault).__name__)
            told = False
        course.failures = 0 if told else course.failures + 1

    async def _ask(self, provider: Provider, account: str, tls: ssl.SSLContext) -> bool:
        """Whether the answer told how the account stands."""
        credential = self._credential(provider, account)
        assert credential is not None
        outgoing = request(provider, *credential)
        url = f"{provider.url.scheme}://{provider.url.authority}{outgoing.path}"
        async with (
            # One for each account: it keeps cookies.
            httpx.AsyncClient(
                verify=tls, timeout=PATIENCE, follow_redirects=False, trust_env=False
            ) as client,
            client.stream("POST", url, headers=list(outgoing.headers), content=outgoing.body) as answer,
        ):
            log.debug("probe of %s: %s", provider.name, answer.status_code)
            return self._tracker.observe_probe(provider, account, answer.status_code, answer.headers)


def _may_be_probed(provider: Provider) -> bool:
    """Others that show a plan's windows, such as gateways, are asked where the user gave them `quota`."""
    return provider.is_anthropic or provider.quota.status_file is not None


def _as_header(key: str) -> Headers:
    """As Anthropic takes a login's token, or a key (anthropic-messages.md, 1)."""
    return (("authorization", f"Bearer {key}") if key.startswith(_OAUTH_TOKEN) else ("x-api-key", key),)


def request(provider: Provider, login: Headers, key: str | None) -> Outgoing:
    """A probe, prepared as every request to this provider is."""
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
