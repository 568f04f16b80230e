"""Who asks, and which headers may leave for which provider: the one place that decides both."""

import hmac
import re
from collections.abc import Iterable, Mapping

import msgspec

from signalbox.config.rules import Provider

type Headers = tuple[tuple[str, str], ...]

CLIENT_HEADER = "x-signalbox-client"

CREDENTIALS = frozenset(
    {
        "authorization",
        "x-api-key",
        "api-key",
        "x-goog-api-key",
        "proxy-authorization",
        "cookie",
        CLIENT_HEADER,
    }
)
"""Headers that hold a secret of the caller, lower case."""

_SECRET_NAME = re.compile(r"key|token|secret|auth|passw|credential|cookie", re.IGNORECASE)

LOGIN = ("authorization", "x-api-key")
"""Those by which Anthropic knows its callers (reference/anthropic-messages.md, section 1)."""

_SHORTEST = 8
"""Characters of what is taken for a secret in the words of others."""

_STAYS_HOME = frozenset({"anthropic-workspace-id"})
_STAYS_HOME_PREFIXES = ("x-claude-code-", "x-signalbox-")

HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
)
"""RFC 9110, section 7.6.1, with the older `keep-alive` and `proxy-connection`."""

_ANTHROPIC_SECRET = "sk-ant-"  # noqa: S105 (the prefix of every Anthropic key and token, not one of them)


class Caller(msgspec.Struct, frozen=True):
    """Who asks.

    `headers` are the caller's, in order, less all by which configured clients prove themselves. `has_login`
    says whether credentials of the caller's own are among them.
    """

    headers: Headers
    client: str | None = None

    @property
    def has_login(self) -> bool:
        return self.login is not None

    @property
    def login(self) -> tuple[str, str] | None:
        """The header by which Anthropic knows this caller."""
        return next((h for h in self.headers if h[0].lower() in LOGIN and h[1].strip()), None)


def is_secret(name: str, value: str = "") -> bool:
    """Whether a header or query parameter is shown masked."""
    return _SECRET_NAME.search(name) is not None or name.lower() in CREDENTIALS or _ANTHROPIC_SECRET in value


def identify(headers: Headers, clients: Mapping[str, str]) -> Caller | None:
    """The caller, or None where clients are configured and none of their secrets was presented."""
    rest: list[tuple[str, str]] = []
    client = None
    for header, value in headers:
        known = _client(bare(value), clients) if header.lower() in (*LOGIN, CLIENT_HEADER) else None
        client = client or known
        if known is None and header.lower() != CLIENT_HEADER:
            rest.append((header, value))
    return None if clients and client is None else Caller(tuple(rest), client)


def forwarded(headers: Headers, provider: Provider) -> list[tuple[str, str]]:
    """The caller's headers that may go to this provider.

    All of them where it takes the caller's own login; elsewhere none that tells who the caller is (the
    contract, section 5). The provider's own key is not among them yet.
    """
    if provider.auth == "client":
        return list(headers)
    connection = (value for name, value in headers if name.lower() == "connection")
    hop_by_hop = HOP_BY_HOP | {name.strip().lower() for value in connection for name in value.split(",")}
    return [
        (name, value)
        for name, value in headers
        if (lower := name.lower()) not in CREDENTIALS
        and lower not in hop_by_hop
        and lower not in _STAYS_HOME
        and not lower.startswith(_STAYS_HOME_PREFIXES)
        and _ANTHROPIC_SECRET not in value
    ]


def with_key(headers: list[tuple[str, str]], provider: Provider, key: str | None) -> list[tuple[str, str]]:
    """The headers with a key of the provider's own, or the token of its login, where it has one."""
    if key is None:
        return headers
    if provider.auth == "claude-login" or provider.key_header == "authorization":
        return [*headers, ("authorization", f"Bearer {key}")]
    return [*headers, (provider.key_header, key)]


def secrets_of(headers: Iterable[tuple[str, str]], query: Mapping[str, str]) -> tuple[str, ...]:
    """The credentials that a request is sent with, as its provider may repeat them in an error.

    Very short ones are none that anybody keeps secret, but words that an error may hold anyway (`ollama`).
    """
    told = (bare(value) for name, value in (*headers, *query.items()) if is_secret(name, value))
    return tuple(secret for secret in told if len(secret) >= _SHORTEST)


def leak(
    provider: Provider, path: str, headers: Iterable[tuple[str, str]], login: str | None = None
) -> str | None:
    """What is about to leave for a provider though it is not the provider's: a header's name, or `path`.

    `login` is the token of its own login, where it has one. This is the last look before a request is sent.
    It does not trust that the headers were chosen above.
    """
    if provider.auth == "client":
        return None
    own = {login, *(secret.value for secret in provider.keys)}
    if _ANTHROPIC_SECRET in path:
        return "path"
    return next(
        (name for name, value in headers if _ANTHROPIC_SECRET in value and bare(value) not in own), None
    )


def _client(presented: str, clients: Mapping[str, str]) -> str | None:
    """Whose secret this is. Each is compared, so that the time tells nothing."""
    found = [name for name, secret in clients.items() if _same(presented, secret)]
    return found[0] if found else None


def bare(value: str) -> str:
    """The secret in a credential header's value."""
    scheme, _, rest = value.strip().partition(" ")
    return rest.strip() if scheme.lower() == "bearer" else value.strip()


def _same(presented: str, secret: str) -> bool:
    return hmac.compare_digest(presented.encode("utf-8", "surrogateescape"), secret.encode())
