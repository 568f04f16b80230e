"""The merged model list: all providers with a list are asked at the same time (the contract, section 7)."""

import asyncio
import logging
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import msgspec

from signalbox.anthropic import models
from signalbox.anthropic.errors import refused_key
from signalbox.anthropic.models import ModelEntry, ModelListPage
from signalbox.config import files
from signalbox.config.rules import Model, Provider, Rules
from signalbox.routing.credentials import Caller, Headers
from signalbox.state.atomic_file import replace

log = logging.getLogger("signalbox")

FILE = "models.json"
STOCK = Path(__file__).with_name("stock.json")
"""Anthropic's current models, as the `anthropic` package 2.10 names them (`types/model_param.py`)."""

LIMIT = 2.0
"""Seconds for all pages of a provider. Claude Code waits 3 s for the merged list (claude-code-observed.md,
1)."""


class ListResponse(NamedTuple):
    status: int
    headers: Headers
    body: bytes
    """Decoded."""


type Observe = Callable[[int, Mapping[str, str]], None]
"""Called with status and headers of a response."""


def ignore(status: int, headers: Mapping[str, str]) -> None:
    """Does nothing."""


class FetchError(Exception):
    """A list could not be fetched. The text says why, and holds no secret."""


class FetchRefusedError(FetchError):
    """The provider answered with an error."""

    def __init__(self, answer: ListResponse) -> None:
        super().__init__(f"it answered {answer.status}")
        self.answer = answer


type Fetched = list[ModelEntry] | FetchError


class Gathered(NamedTuple):
    entries: list[ModelEntry]
    missing: tuple[str, ...] = ()
    """Providers whose list could not be fetched."""
    refusal: ListResponse | None = None
    """Anthropic's error if it refuses the caller's credentials; it becomes the answer."""


class ModelLists:
    """Merges the lists; stores Anthropic's last one in `folder`."""

    def __init__(
        self,
        folder: Path,
        *,
        token_of: Callable[[Provider], str | None],
        observe: Callable[[Provider, Caller | None, int, Mapping[str, str]], None] | None = None,
        limit: float = LIMIT,
    ) -> None:
        """`token_of` gives the token of a provider's own login; `observe` is called with the head of each
        response; `limit` is as in `fetch_models`."""
        self._file = folder / FILE
        self._token_of = token_of
        self._observe = observe
        self._limit = limit
        self._failures: dict[str, str] = {}

    async def gather(
        self,
        rules: Rules,
        caller: Caller | None = None,
        *,
        upstream: Provider | None = None,
        query: str = "",
        tls: ssl.SSLContext | None = None,
    ) -> Gathered:
        """The list for this caller; without a caller, the list for the picker file.

        Anthropic's part comes from the first provider that is Anthropic itself and has a credential, with
        `query`; else from `upstream`, which gets requests that no rule matches. The upstream may not know the
        caller, so its refusal is ignored. Without a caller and a key, Anthropic's last list is used.
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
        missing = [name for name, one in lists.items() if isinstance(one, FetchError)]
        if isinstance(first, FetchError):
            assert home is not None
            missing.insert(0, home.name)
            if isinstance(first, FetchRefusedError) and named is not None and caller is not None:
                return Gathered([], tuple(missing), _refusal(named, first.answer))
            first = None
        if first:
            await self._remember(first)
        elif caller is None:
            first, home = await self._last_seen(), home or _anthropic(rules)
        parts = [_part(home, first or []), *_parts(others, lists)]
        return Gathered(models.merged(parts), tuple(missing))

    async def offered(self, rules: Rules) -> dict[str, Sequence[Model]]:
        """By provider with `models`, in file order, its models with their own ids; no caller is involved.

        Without a key or a login of the router's own Anthropic's are those of its last list. A provider whose
        list cannot be fetched is left out.
        """
        listing = [p for p in rules.providers.values() if p.models is not None and not _has_no_key(p)]
        asked = [p for p in listing if p.models == "list" and self._can_be_asked(p, None, rules)]
        fetched = await asyncio.gather(*(self._fetched(p, None, "", None) for p in asked))
        lists = {p.name: one for p, one in zip(asked, fetched, strict=True) if isinstance(one, list)}
        found: dict[str, Sequence[Model]] = {}
        for provider in listing:
            if isinstance(provider.models, tuple):
                found[provider.name] = provider.models
                continue
            entries = lists.get(provider.name)
            if entries is None and provider.is_anthropic:
                entries = await self._last_seen()
            if entries:
                found[provider.name] = [Model(entry["id"]) for entry in entries]
        return found

    async def _fetched(
        self, provider: Provider | None, caller: Caller | None, query: str, tls: ssl.SSLContext | None
    ) -> Fetched | None:
        """Only the first of consecutive equal failures is logged."""
        if provider is None:
            return None
        try:
            credential = self._credential(provider, caller)
            observe = partial(self._observe, provider, caller) if self._observe else ignore
            found = await _fetch(provider, credential, query, tls, observe, self._limit)
        except FetchError as error:
            if self._failures.get(provider.name) != str(error):
                log.warning("no model list from %s: %s", provider.name, error)
            self._failures[provider.name] = str(error)
            return error
        self._failures.pop(provider.name, None)
        return found

    def _credential(self, provider: Provider, caller: Caller | None) -> Caller | str | None:
        if provider.auth == "client":
            return caller
        return self._token_of(provider) if provider.uses_login else provider.key

    def _can_be_asked(self, provider: Provider, caller: Caller | None, rules: Rules) -> bool:
        """Whether there is a credential for the provider, or it needs none."""
        if provider.auth == "client":
            return caller is not None and (caller.has_login or not rules.clients)
        if provider.auth == "none":
            return not provider.is_anthropic
        return self._credential(provider, caller) is not None

    async def _remember(self, entries: Sequence[ModelEntry]) -> None:
        data = msgspec.json.encode({"data": entries})

        def write() -> None:
            if not self._file.is_file() or self._file.read_bytes() != data:
                replace(self._file, data)

        try:
            await files.within_async(self._file, write, files.SOON)
        except OSError as error:
            log.warning("%s cannot be written: %s", self._file, error.strerror or error)

    async def _last_seen(self) -> list[ModelEntry]:
        """Anthropic's last list, else the stock list."""
        for file in (self._file, STOCK):
            try:
                if entries := models.parse_page(await files.read_file_async(file)).entries:
                    return entries
            except (OSError, ValueError):
                continue
        return []


async def _fetch(
    provider: Provider,
    credential: Caller | str | None,
    query: str,
    tls: ssl.SSLContext | None,
    observe: Observe,
    limit: float,
) -> list[ModelEntry]:
    """`fetch_models`, which is slow to import: not on the event loop."""
    try:
        await asyncio.to_thread(import_module, "signalbox.background.model_fetch")
    except (ImportError, OSError) as error:
        raise FetchError(f"it could not be asked: {type(error).__name__}") from None
    from signalbox.background.model_fetch import fetch_models

    return await fetch_models(provider, credential, query, tls=tls, observe=observe, limit=limit)


def _refusal(provider: Provider, answer: ListResponse) -> ListResponse:
    """The client's answer: 403 instead of 401 if the router's key was refused and not the client's login."""
    if answer.status != 401 or provider.auth == "client":
        return answer
    error = refused_key(provider.name, answer.body)
    return ListResponse(403, (("content-type", "application/json"),), error)


def _has_no_key(provider: Provider) -> bool:
    return provider.auth == "key" and provider.key is None


def _anthropic(rules: Rules) -> Provider | None:
    return next((p for p in rules.providers.values() if p.is_anthropic), None)


def _parts(providers: Sequence[Provider], lists: dict[str, Fetched | None]) -> Iterator[ModelListPage]:
    """The part of each provider: the ids in the rules, or the list that it gave."""
    for provider in providers:
        if isinstance(provider.models, tuple):
            yield _part(provider, _written(provider.models), is_written=True)
        elif isinstance(found := lists.get(provider.name), list):
            yield _part(provider, found)


def _written(listed: Iterable[Model]) -> list[ModelEntry]:
    return [{"id": m.id, "display_name": m.label, "description": m.description} for m in listed]


def _part(
    provider: Provider | None, entries: Sequence[ModelEntry], *, is_written: bool = False
) -> ModelListPage:
    is_own = not is_written and (provider is None or provider.is_anthropic)
    is_long = provider.has_long_context if provider else lambda id: False
    return ModelListPage(entries, is_long, is_own, is_written)
