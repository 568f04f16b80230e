"""One provider is asked for its model list."""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from contextlib import aclosing
from functools import cache
from typing import NamedTuple
from urllib.parse import urlencode

import httpx

from signalbox import __version__
from signalbox.config.rules import Provider
from signalbox.messages import betas, models
from signalbox.messages.encoding import EncodingError, TooLarge, decode
from signalbox.messages.models import Entry
from signalbox.messages.paths import MODELS
from signalbox.routing.credentials import (
    HOP_BY_HOP,
    Caller,
    Headers,
    forwarded,
    forwarded_query,
    leak,
    with_key,
)
from signalbox.routing.outgoing import BETA

LIMIT = 2.0
"""Seconds for all pages of a provider: Claude Code waits 3 for the whole (claude-code-observed.md, 1)."""
LARGEST = 4 * 1024 * 1024
"""Bytes of a page, also decoded."""
PER_PAGE = 1000
"""The most that Anthropic gives at once (anthropic-messages.md, 10)."""
VERSION = "2023-06-01"

_OF_THE_CALLERS_CONNECTION = HOP_BY_HOP | {"host", "content-length", "expect"}
_OF_THE_WIRE = HOP_BY_HOP | {"content-length", "content-encoding"}


class Answer(NamedTuple):
    status: int
    headers: Headers
    body: bytes
    """Decoded."""


type Hear = Callable[[int, Mapping[str, str]], None]
"""Told the status and the headers of an answer."""


def nobody(status: int, headers: Mapping[str, str]) -> None:
    """Hears nothing."""


class FailedError(Exception):
    """A list could not be had. The text says why and holds no secret."""


class RefusedError(FailedError):
    """The provider answered, but with no list."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"it answered {answer.status}")
        self.answer = answer


@cache
def trusted() -> ssl.SSLContext:
    """Whom TLS connections trust where nothing else is said."""
    return httpx.create_ssl_context(trust_env=False)


async def ask(
    provider: Provider,
    credential: Caller | str | None,
    query: str = "",
    *,
    tls: ssl.SSLContext | None = None,
    hear: Hear = nobody,
) -> list[Entry]:
    """All pages of the provider's list.

    `credential` is the caller where its own credentials go there, else the provider's key, or the token of
    its login. `query` is added to the request, `hear` told of each answer. Raises FailedError, RefusedError.
    """
    try:
        async with (
            asyncio.timeout(LIMIT),
            # One for each provider: it keeps cookies, which know no ports.
            httpx.AsyncClient(verify=tls or trusted(), trust_env=False) as client,
        ):
            return await _Asking(client, provider, credential, query, hear).pages()
    except TimeoutError:
        raise FailedError(f"it took longer than {LIMIT:g} s") from None
    except httpx.ConnectError:
        raise FailedError("it could not be reached") from None
    except (httpx.HTTPError, httpx.InvalidURL) as fault:  # whose texts may hold a header
        raise FailedError(f"it could not be asked: {type(fault).__name__}") from None
    except (ValueError, EncodingError, TooLarge) as fault:
        raise FailedError(f"its list cannot be read: {fault}") from None


class _Asking:
    def __init__(
        self,
        client: httpx.AsyncClient,
        provider: Provider,
        credential: Caller | str | None,
        query: str,
        hear: Hear,
    ) -> None:
        self._client = client
        self._provider = provider
        self._headers = _headers(provider, credential)
        self._login = credential if isinstance(credential, str) else None
        self._query = forwarded_query(query, provider)
        self._hear = hear

    async def pages(self) -> list[Entry]:
        found: dict[str, Entry] = {}
        last: str | None = None
        while True:
            known = len(found)
            page = models.read((await self._get(last)).body)
            for entry in page.entries:
                found.setdefault(entry["id"], entry)
            last = page.last
            is_news = known < len(found) < models.MOST
            if last is None or not is_news or self._provider.api == "openai":
                return list(found.values())

    async def _get(self, after: str | None) -> Answer:
        """One page. A redirect is not followed: whoever gets a credential stands in the rules."""
        provider = self._provider
        path = _path(provider, self._query, after)
        if name := leak(provider, path, self._headers.multi_items(), self._login):
            raise FailedError(f"{name} holds an Anthropic credential that is not its own")
        url = f"{provider.url.scheme}://{provider.url.authority}{path}"
        request = httpx.Request("GET", url, headers=self._headers)  # which adds none of the client's own
        body = bytearray()
        async with aclosing(await self._client.send(request, stream=True)) as response:
            self._hear(response.status_code, response.headers)
            async for data in response.aiter_raw():
                body += data
                if len(body) > LARGEST:
                    raise TooLarge(f"more than {LARGEST} bytes")
        told = response.headers
        decoded = decode(bytes(body), told.get("content-encoding", ""), LARGEST)
        kept = tuple((name, value) for name, value in told.multi_items() if name.lower() not in _OF_THE_WIRE)
        answer = Answer(response.status_code, kept, decoded)
        if not response.is_success:
            raise RefusedError(answer)
        return answer


def _path(provider: Provider, query: str, after: str | None) -> str:
    """`{url}/v1/models` for Anthropic's protocol, `{url}/models` for OpenAI's, which knows no pages."""
    asked: dict[str, str] = {}
    if provider.api == "anthropic":
        asked = {"limit": str(PER_PAGE)} | ({"after_id": after} if after else {})
    queries = (query, urlencode(asked), urlencode(provider.query))
    path = provider.url.path + (MODELS if provider.api == "anthropic" else "/models")
    return "?".join(filter(None, (path, "&".join(filter(None, queries)))))


def _headers(provider: Provider, credential: Caller | str | None) -> httpx.Headers:
    """The caller's own where it is the caller's credentials that count, else none of them."""
    if isinstance(credential, Caller):
        sent = forwarded(credential.headers, provider)
        sent = [(name, value) for name, value in sent if name.lower() not in _OF_THE_CALLERS_CONNECTION]
    else:
        own = [("accept", "application/json"), ("user-agent", f"signalbox/{__version__}")]
        if provider.api == "anthropic":
            own.append(("anthropic-version", VERSION))
        if provider.auth == "claude-login":
            own.append((BETA, betas.OAUTH))
        sent = with_key(own, provider, credential)
    headers = httpx.Headers([(_bytes(name), _bytes(value)) for name, value in sent])
    for name, value in provider.headers.items():
        headers.pop(name, None)
        if value:
            headers[name] = value
    headers["accept-encoding"] = "identity"
    return headers


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
