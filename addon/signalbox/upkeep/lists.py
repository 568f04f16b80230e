"""The merged model list: every provider that has one is asked at the same time (the contract, section 7)."""

import asyncio
import logging
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec

from signalbox.config import files
from signalbox.config.rules import Provider, Rules
from signalbox.messages import models
from signalbox.messages.errors import refused_key
from signalbox.messages.models import Entry, Part
from signalbox.routing.credentials import Caller
from signalbox.upkeep.fetch import Answer, FailedError, RefusedError, ask, nobody
from signalbox.upkeep.replace import replace

log = logging.getLogger("signalbox")

FILE = "models.json"
STOCK = Path(__file__).with_name("stock.json")
"""Anthropic's current models, as the `anthropic` package 2.10 names them (`types/model_param.py`)."""

type Fetched = list[Entry] | FailedError


class Gathered(NamedTuple):
    entries: list[Entry]
    missing: tuple[str, ...] = ()
    """Providers whose list could not be had."""
    refusal: Answer | None = None
    """What Anthropic says where it refuses: then that is the answer."""


class Lists:
    """Keeps Anthropic's last list in `folder`, and in mind what was told of providers that gave none."""

    def __init__(
        self,
        folder: Path,
        *,
        token_of: Callable[[Provider], str | None],
        hear: Callable[[Provider, Caller | None, int, Mapping[str, str]], None] | None = None,
    ) -> None:
        """`token_of` gives the token of a provider's own login; `hear` is told of each answer."""
        self._file = folder / FILE
        self._token_of = token_of
        self._hear = hear
        self._told: dict[str, str] = {}

    async def gather(
        self,
        rules: Rules,
        caller: Caller | None = None,
        *,
        upstream: Provider | None = None,
        query: str = "",
        tls: ssl.SSLContext | None = None,
    ) -> Gathered:
        """The list for this caller; without one, for nobody in particular.

        Anthropic's part is asked of the first provider that is Anthropic itself and has a credential, with
        `query`; else of `upstream`, which gets what no rule takes and may well not know this caller, so that
        its refusal is no answer. Without a caller and a key it is the last one seen.
        """
        able = [p for p in rules.providers.values() if self._can_be_asked(p, caller, rules)]
        named = next((p for p in able if p.is_anthropic), None)
        home = named or (upstream if upstream and self._can_be_asked(upstream, caller, rules) else None)
        others = [p for p in rules.providers.values() if p.models is not None and not _has_no_key(p)]
        asked = [p for p in others if p.models == "list" and p in able and p is not home]
        first, *rest = await asyncio.gather(
            self._fetched(home, caller, query, tls), *(self._fetched(p, caller, "", tls) for p in asked)
        )
        lists = {provider.name: one for provider, one in zip(asked, rest, strict=True)}
        missing = [name for name, one in lists.items() if isinstance(one, FailedError)]
        if isinstance(first, FailedError):
            assert home is not None
            missing.insert(0, home.name)
            if isinstance(first, RefusedError) and named is not None and caller is not None:
                return Gathered([], tuple(missing), _refusal(named, first.answer))
            first = None
        if first:
            self._remember(first)
        elif caller is None:
            first, home = self._last_seen(), home or _anthropic(rules)
        parts = [_part(home, first or []), *_parts(others, lists)]
        return Gathered(models.merged(parts), tuple(missing))

    async def _fetched(
        self, provider: Provider | None, caller: Caller | None, query: str, tls: ssl.SSLContext | None
    ) -> Fetched | None:
        """Of a row of like failures only the first is told."""
        if provider is None:
            return None
        try:
            credential = self._credential(provider, caller)
            hear = partial(self._hear, provider, caller) if self._hear else nobody
            found = await ask(provider, credential, query, tls=tls, hear=hear)
        except FailedError as fault:
            if self._told.get(provider.name) != str(fault):
                log.warning("no model list from %s: %s", provider.name, fault)
            self._told[provider.name] = str(fault)
            return fault
        self._told.pop(provider.name, None)
        return found

    def _credential(self, provider: Provider, caller: Caller | None) -> Caller | str | None:
        if provider.auth == "client":
            return caller
        return self._token_of(provider) if provider.auth == "claude-login" else provider.key

    def _can_be_asked(self, provider: Provider, caller: Caller | None, rules: Rules) -> bool:
        """Whether there is a credential for it, or it needs none."""
        if provider.auth == "client":
            return caller is not None and (caller.has_login or not rules.clients)
        if provider.auth == "none":
            return not provider.is_anthropic
        return self._credential(provider, caller) is not None

    def _remember(self, entries: Sequence[Entry]) -> None:
        data = msgspec.json.encode({"data": entries})

        def write() -> None:
            if not self._file.is_file() or self._file.read_bytes() != data:
                replace(self._file, data)

        try:
            files.within(self._file, write, files.SOON)
        except OSError as fault:
            log.warning("%s cannot be written: %s", self._file, fault.strerror or fault)

    def _last_seen(self) -> list[Entry]:
        """Anthropic's part as it last came, else the stock list."""
        for file in (self._file, STOCK):
            try:
                if entries := models.read(files.read(file, limit=files.SOON)).entries:
                    return entries
            except (OSError, ValueError):
                continue
        return []


def _refusal(provider: Provider, answer: Answer) -> Answer:
    """What a client is told: its own login is not at fault where the router's key was refused."""
    if answer.status != 401 or provider.auth == "client":
        return answer
    said = refused_key(provider.name, answer.body)
    return Answer(403, (("content-type", "application/json"),), said)


def _has_no_key(provider: Provider) -> bool:
    return provider.auth == "key" and provider.key is None


def _anthropic(rules: Rules) -> Provider | None:
    return next((p for p in rules.providers.values() if p.is_anthropic), None)


def _parts(providers: Sequence[Provider], lists: dict[str, Fetched | None]) -> Iterator[Part]:
    """What each provider adds: the ids that the rules give it, or its own list where it gave one."""
    for provider in providers:
        if isinstance(provider.models, tuple):
            yield _part(provider, models.named(provider.models), is_own=False)
        elif isinstance(found := lists.get(provider.name), list):
            yield _part(provider, found)


def _part(provider: Provider | None, entries: Sequence[Entry], *, is_own: bool = True) -> Part:
    globs = provider.long_context if provider else ()
    return Part(
        entries,
        lambda id: any(glob.matches(id) for glob in globs),
        is_own and (provider is None or provider.is_anthropic),
    )
