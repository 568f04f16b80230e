"""The merged model list: all providers with a list are asked at the same time (the contract, section 7)."""

import asyncio
import logging
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

import httpx
import msgspec

from signalbox import __version__
from signalbox.anthropic import betas, models
from signalbox.anthropic.encoding import EncodingError, TooLarge, decode
from signalbox.anthropic.errors import refused_key
from signalbox.anthropic.models import ModelEntry, ModelListPage
from signalbox.background.http_client import http_client
from signalbox.config import files
from signalbox.config.rules import Model, Provider, Rules
from signalbox.protocols import PROVIDER_APIS
from signalbox.routing.credentials import (
    HOP_BY_HOP,
    Caller,
    Headers,
    encoded,
    forwarded,
    forwarded_query,
    leak,
    with_key,
)
from signalbox.routing.outgoing import BETA
from signalbox.state.atomic_file import replace

log = logging.getLogger("signalbox")

FILE = "models.json"
STOCK = Path(__file__).with_name("stock.json")
"""Anthropic's current models, as the `anthropic` package 2.10 names them (`types/model_param.py`)."""

LIMIT = 2.0
"""Seconds for all pages of a provider. Claude Code waits 3 s for the merged list (claude-code-observed.md,
1)."""
LARGEST = 4 * 1024 * 1024
"""Bytes of the largest page, encoded and decoded."""
PER_PAGE = 1000
"""The largest page size that Anthropic allows (anthropic-messages.md, 10)."""

_OF_THE_CALLERS_CONNECTION = HOP_BY_HOP | {"host", "content-length", "expect"}
_OF_THE_WIRE = HOP_BY_HOP | {"content-length", "content-encoding"}


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


@cache
def default_ssl_context() -> ssl.SSLContext:
    """The default TLS context: trusts the certificate authorities of certifi."""
    return httpx.create_ssl_context(trust_env=False)


async def fetch_models(
    provider: Provider,
    credential: Caller | str | None,
    query: str = "",
    *,
    tls: ssl.SSLContext | None = None,
    observe: Observe = ignore,
    limit: float = LIMIT,
) -> list[ModelEntry]:
    """All pages of the provider's list.

    `credential` is the caller if its own credentials are used, else the provider's key or the token of its
    login. `query` is added to the request. `observe` is called with the head of each response. All pages
    together may take `limit` seconds. Raises FetchError.
    """
    if tls is None:  # made outside the limit: reading the certificate authorities takes a while
        tls = await asyncio.to_thread(default_ssl_context)
    try:
        async with (
            asyncio.timeout(limit),
            http_client(provider, tls, limit) as client,
        ):
            return await _Asking(client, provider, credential, query, observe).pages()
    except TimeoutError:
        raise FetchError(f"it took longer than {limit:g} s") from None
    except httpx.ProxyError:
        assert provider.proxy is not None
        raise FetchError(f"the proxy {provider.proxy.address} refused to connect to it") from None
    except httpx.ConnectError:
        via = f" through the proxy {provider.proxy.address}" if provider.proxy is not None else ""
        raise FetchError(f"it could not be reached{via}") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:  # their texts may contain a header
        raise FetchError(f"it could not be asked: {type(error).__name__}") from None
    except (ValueError, EncodingError, TooLarge) as error:
        raise FetchError(f"its list cannot be read: {error}") from None


class _Asking:
    def __init__(
        self,
        client: httpx.AsyncClient,
        provider: Provider,
        credential: Caller | str | None,
        query: str,
        observe: Observe,
    ) -> None:
        self._client = client
        self._provider = provider
        self._headers = _headers(provider, credential)
        self._login = credential if isinstance(credential, str) else None
        self._query = forwarded_query(query, provider)
        self._observe = observe

    async def pages(self) -> list[ModelEntry]:
        found: dict[str, ModelEntry] = {}
        last: str | None = None
        while True:
            before = len(found)
            page = models.parse_page((await self._get(last)).body)
            for entry in page.entries:
                found.setdefault(entry["id"], entry)
            last = page.last
            is_news = before < len(found) < models.MOST
            if last is None or not is_news or not PROVIDER_APIS[self._provider.list_api].models_paged:
                return list(found.values())

    async def _get(self, after: str | None) -> ListResponse:
        """One page. Redirects are not followed: a credential is sent only to a URL of the rules."""
        provider = self._provider
        path = _path(provider, self._query, after)
        if name := leak(provider, path, self._headers.multi_items(), self._login):
            raise FetchError(f"{name} holds an Anthropic credential that is not its own")
        url = f"{provider.url.scheme}://{provider.url.authority}{path}"
        request = httpx.Request("GET", url, headers=self._headers)  # which adds none of the client's own
        body = bytearray()
        async with aclosing(await self._client.send(request, stream=True)) as response:
            self._observe(response.status_code, response.headers)
            async for data in response.aiter_raw():
                body += data
                if len(body) > LARGEST:
                    raise TooLarge(f"more than {LARGEST} bytes")
        answered = response.headers
        decoded = decode(bytes(body), answered.get("content-encoding", ""), LARGEST)
        headers = tuple(
            (name, value) for name, value in answered.multi_items() if name.lower() not in _OF_THE_WIRE
        )
        answer = ListResponse(response.status_code, headers, decoded)
        if not response.is_success:
            raise FetchRefusedError(answer)
        return answer


def _path(provider: Provider, query: str, after: str | None) -> str:
    """`{url}/v1/models` for Anthropic's protocol, `{url}/models` for OpenAI's."""
    protocol = PROVIDER_APIS[provider.list_api]
    asked: dict[str, str] = {}
    if protocol.models_paged:
        asked = {"limit": str(PER_PAGE)} | ({"after_id": after} if after else {})
    queries = (query, urlencode(asked), urlencode(provider.query))
    path = provider.url.path + protocol.models_path
    return "?".join(filter(None, (path, "&".join(filter(None, queries)))))


def _headers(provider: Provider, credential: Caller | str | None) -> httpx.Headers:
    """The headers to send. The caller's own are sent only if its credentials are."""
    if isinstance(credential, Caller):
        sent = forwarded(credential.headers, provider)
        sent = [(name, value) for name, value in sent if name.lower() not in _OF_THE_CALLERS_CONNECTION]
    else:
        own = [("accept", "application/json"), ("user-agent", f"signalbox/{__version__}")]
        own += PROVIDER_APIS[provider.list_api].models_headers
        if provider.auth == "claude-login":
            own.append((BETA, betas.OAUTH))
        sent = with_key(own, provider, credential, provider.list_api)
    headers = httpx.Headers(encoded(sent))
    for name, value in provider.headers.items():
        headers.pop(name, None)
        if value:
            headers[name] = value
    headers["accept-encoding"] = "identity"
    return headers


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
            found = await fetch_models(
                provider, credential, query, tls=tls, observe=observe, limit=self._limit
            )
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
