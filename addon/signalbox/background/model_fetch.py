"""Asks one provider for its model list (the contract, section 7).

The router imports this for the first list: httpx takes some hundredths of a second.
"""

import asyncio
import ssl
from contextlib import aclosing
from urllib.parse import urlencode

import httpx

from signalbox import __version__
from signalbox.anthropic import betas, models
from signalbox.anthropic.encoding import EncodingError, TooLarge, decode
from signalbox.anthropic.models import ModelEntry
from signalbox.background.http_client import http_client
from signalbox.background.model_list import (
    LIMIT,
    FetchError,
    FetchRefusedError,
    ListResponse,
    Observe,
    ignore,
)
from signalbox.config.rules import Provider
from signalbox.protocols import PROVIDER_APIS
from signalbox.routing.credentials import (
    HOP_BY_HOP,
    Caller,
    encoded,
    forwarded,
    forwarded_query,
    leak,
    with_key,
)
from signalbox.routing.outgoing import BETA
from signalbox.tls import default_ssl_context

LARGEST = 4 * 1024 * 1024
"""Bytes of the largest page, encoded and decoded."""
PER_PAGE = 1000
"""The largest page size that Anthropic allows (anthropic-messages.md, 10)."""

_OF_THE_CALLERS_CONNECTION = HOP_BY_HOP | {"host", "content-length", "expect"}
_OF_THE_WIRE = HOP_BY_HOP | {"content-length", "content-encoding"}


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
            await http_client(provider, tls, limit) as client,
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
