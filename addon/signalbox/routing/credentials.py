"""Who asks, and which headers may leave for which provider: the one place that decides both."""

import hmac
import re
from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from urllib.parse import parse_qsl, unquote

import msgspec

from signalbox.config.rules import Provider

type Headers = tuple[tuple[str, str], ...]

CLIENT_HEADER = "x-signalbox-client"

_WORD = re.compile(
    r"auth|authn|authz|authori[sz](?:ation|ed)|authenticat(?:ion|ed)|keys?|jwt|bearer|pass|sig|signature"
    r"|.*(?:token|secrets?|password|passwd|passphrase|credentials?|cookies?|oauth|(?:api|access|auth|secret"
    r"|private|session|subscription|client|user|account|master|virtual|service|license)keys?)"
)
"""Words of a name, whole, that say that its value is a secret; those after `.*` also at the end of words that
are written as one (`authtoken`). Counts are none: `max-tokens`."""
_WORDS_OF_NAME = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_VALUE = re.compile(r"sk-ant-|\bsk-[\w-]{16,}|\bbearer\s+\S|^\s*basic\s+\S", re.IGNORECASE)
"""A key as Anthropic and most others write theirs, or the schemes of RFC 6750 and RFC 7617."""

LOGIN = ("authorization", "x-api-key")
"""Those by which Anthropic knows its callers (reference/anthropic-messages.md, section 1)."""

_SHORTEST = 8
"""Characters of what is taken for a secret in the words of others."""

_DEEPEST = 5
"""Times that percent escapes are undone."""

_STAYS_HOME = frozenset({"anthropic-workspace-id"})
_STAYS_HOME_PREFIXES = ("x-claude-code-", "x-signalbox-")

HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
)
"""RFC 9110, section 7.6.1, with the older `keep-alive` and `proxy-connection`."""

_ANTHROPIC_SECRET = "sk-ant-"  # noqa: S105 (the prefix of every Anthropic key and token, not one of them)

SHOWN = 5
"""Characters shown of either end of a secret."""
SHORTEST_SHOWN = 16
SCHEMES = ("bearer", "basic")
_MASKED = re.compile(r"(?:(?:bearer|basic) )?(?:\*\*\*|.{5}\.\.\..{5})", re.IGNORECASE)


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
    """Whether a header or query parameter holds a credential: it is shown masked, and of the caller's it
    goes to no provider but one with `auth: client`.

    A name says so by one of its words (`X_Api_Key`, `apiKey`, `Cookie2`, but not `x-max-tokens`), a value by
    what stands in it, percent-encoded too.
    """
    words = (word.lower() for word in _WORDS_OF_NAME.findall(name))
    return (
        name.lower() == CLIENT_HEADER
        or any(_WORD.fullmatch(word) for word in words)
        or _VALUE.search(percent_decoded(value)) is not None
    )


def encoded(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """As bytes for the wire; a byte that is not UTF-8, and was read as a surrogate, is itself again."""
    return [
        (name.encode("utf-8", "surrogateescape"), value.encode("utf-8", "surrogateescape"))
        for name, value in headers
    ]


def percent_decoded(text: str) -> str:
    """Without its percent escapes, however often they were escaped themselves."""
    for _ in range(_DEEPEST):
        if (plain := unquote(text)) == text:
            break
        text = plain
    return text


def masked_path(path: str) -> str:
    """A path with its query's credentials as they may be shown."""
    route, mark, query = path.partition("?")
    return f"{route}{mark}{'&'.join(map(_masked_parameter, query.split('&')))}"


def _is_secret_parameter(part: str) -> bool:
    name, _, value = part.replace("+", " ").partition("=")
    return is_secret(percent_decoded(name), value) or _VALUE.search(percent_decoded(name)) is not None


def _masked_parameter(part: str) -> str:
    if not _is_secret_parameter(part):
        return part
    name = part.partition("=")[0]
    return "***" if _VALUE.search(percent_decoded(name)) else f"{name}=***"


def identify(headers: Headers, clients: Mapping[str, str]) -> Caller | None:
    """The caller, or None where clients are configured and none of their secrets was presented."""
    proofs = (_client(bare(v), clients) for name, v in headers if name.lower() in (*LOGIN, CLIENT_HEADER))
    client = next((name for name in list(proofs) if name is not None), None)
    return None if clients and client is None else Caller(less_clients(headers, clients), client)


def less_clients(headers: Headers, clients: Mapping[str, str]) -> Headers:
    """The headers less those by which a client proves itself, whatever their names: a client's secret goes
    no further than to this router."""
    return tuple(
        (name, value)
        for name, value in headers
        if name.lower() != CLIENT_HEADER and not _tells_client(value, clients)
    )


def path_less_clients(path: str, clients: Mapping[str, str]) -> str:
    """A path less the parameters of its query that hold a client's secret."""
    route, mark, query = path.partition("?")
    parts = query.split("&") if clients else []
    kept = [part for part in parts if not _tells_client(part.partition("=")[2], clients)]
    return path if len(kept) == len(parts) else f"{route}{mark if kept else ''}{'&'.join(kept)}"


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
        if not is_secret(name, value)
        and (lower := name.lower()) not in hop_by_hop
        and lower not in _STAYS_HOME
        and not lower.startswith(_STAYS_HOME_PREFIXES)
    ]


def forwarded_query(query: str, provider: Provider) -> str:
    """The parameters of the caller's query that may go to this provider, as they came."""
    if provider.auth == "client":
        return query
    return "&".join(part for part in query.split("&") if not _is_secret_parameter(part))


def with_key(headers: list[tuple[str, str]], provider: Provider, key: str | None) -> list[tuple[str, str]]:
    """The headers with a key of the provider's own, or the token of its login, where it has one."""
    if key is None:
        return headers
    if provider.auth == "claude-login" or provider.key_header == "authorization":
        return [*headers, ("authorization", f"Bearer {key}")]
    return [*headers, (provider.key_header, key)]


def secrets_of(headers: Iterable[tuple[str, str]], path: str = "") -> tuple[str, ...]:
    """The credentials that a request is sent with, in its headers and its path's query, as its provider may
    repeat them in an error.

    Very short ones are none that anybody keeps secret, but words that an error may hold anyway (`ollama`).
    """
    parameters = parse_qsl(path.partition("?")[2])
    found = (one for name, value in (*headers, *parameters) if is_secret(name, value) for one in _bare(value))
    return tuple(dict.fromkeys(secret for secret in found if len(secret) >= _SHORTEST))


def leak(
    provider: Provider, path: str, headers: Iterable[tuple[str, str]], login: str | None = None
) -> str | None:
    """The header, by name, or `path`, that holds a credential of another provider; None if none does.

    `login` is the token of its own login, where it has one. This is the last check before a request is sent.
    It does not trust that the headers were chosen above.
    """
    if provider.auth == "client":
        return None
    own = {login, *(secret.value for secret in provider.keys)}
    if _is_anthropics(path):
        return "path"
    return next((name for name, value in headers if _is_anthropics(value) and bare(value) not in own), None)


def _is_anthropics(text: str) -> bool:
    return _ANTHROPIC_SECRET in percent_decoded(text).lower()


def _client(presented: str, clients: Mapping[str, str]) -> str | None:
    """Whose secret this is. Each is compared, so that the time tells nothing."""
    found = [name for name, secret in clients.items() if _same(presented, secret)]
    return found[0] if found else None


def _tells_client(value: str, clients: Mapping[str, str]) -> bool:
    """Whether a value is or holds the secret of a client. Very short ones are looked for as whole values, as
    they may stand in any text."""
    if not clients:
        return False
    texts = [percent_decoded(value), *_bare(value)]
    return any(
        _same(text, secret) or (len(secret) >= _SHORTEST and secret in text)
        for text in texts
        for secret in clients.values()
    )


def bare(value: str) -> str:
    """The secret in a credential header's value."""
    scheme, _, rest = value.strip().partition(" ")
    return rest.strip() if scheme.lower() == "bearer" else value.strip()


def _bare(value: str) -> Iterator[str]:
    """The secrets in the value of any header that holds some: less its scheme, of Basic the password, of
    cookies the value of each."""
    yield (whole := bare(value))
    scheme, _, rest = whole.partition(" ")
    if scheme.lower() == "basic":
        yield rest.strip()
        if password := secret_of_basic(whole):
            yield password
    elif "=" in whole:
        yield from (pair.partition("=")[2].strip() for pair in whole.split(";"))


def secret_of_basic(value: str) -> str:
    """The password in an `Authorization: Basic` header's value (RFC 7617); empty where there is none."""
    scheme, _, rest = value.strip().partition(" ")
    if scheme.lower() == "basic":
        with suppress(ValueError):
            return b64decode(rest.strip()).decode(errors="replace").partition(":")[2]
    return ""


def _same(presented: str, secret: str) -> bool:
    return hmac.compare_digest(presented.encode("utf-8", "surrogateescape"), secret.encode())


def masked(secret: str) -> str:
    """The first and last five characters, `sk-an...wigAA`; nothing of a secret under 16 characters."""
    if len(secret) < SHORTEST_SHOWN:
        return "***"
    return f"{secret[:SHOWN]}...{secret[-SHOWN:]}"


def is_masked(name: str, value: str) -> bool:
    """Whether a header's value is what `masked_value` shows of a credential."""
    return is_secret(name, value) and _MASKED.fullmatch(value.strip()) is not None


def masked_value(value: str) -> str:
    """A header's value with its secret masked; the word before it stays: `Bearer sk-an...wigAA`."""
    scheme, _, secret = value.partition(" ")
    if scheme.lower() in SCHEMES:
        return f"{scheme} {masked(secret.strip())}"
    return masked(value)
