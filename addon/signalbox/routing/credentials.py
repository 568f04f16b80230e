"""Identifies callers, and decides which headers may be sent to which provider. No other module does."""

import hmac
import re
from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from signalbox.config.rules import Api, Provider, Rules
from signalbox.routing.facts import PROJECT_HEADER

type Headers = tuple[tuple[str, str], ...]

CLIENT_HEADER = "x-signalbox-client"

_WORD = re.compile(
    r"auth|authn|authz|authori[sz](?:ation|ed)|authenticat(?:ion|ed)|keys?|jwt|bearer|pass|sig|signature"
    r"|.*(?:token|secrets?|password|passwd|passphrase|credentials?|cookies?|oauth|(?:api|access|auth|secret"
    r"|private|session|subscription|client|user|account|master|virtual|service|license)keys?)"
)
"""Words in a name that mark its value as a secret. Those after `.*` also count at the end of a longer word
(`authtoken`). `max-tokens` is none."""
_WORDS_OF_NAME = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_VALUE = re.compile(r"sk-ant-|\bsk-[\w-]{16,}|\bbearer\s+\S|^\s*basic\s+\S", re.IGNORECASE)
"""A key as Anthropic and most others write theirs, or the schemes of RFC 6750 and RFC 7617."""

LOGIN = ("authorization", "x-api-key")
"""Headers by which Anthropic identifies its callers (reference/anthropic-messages.md, section 1)."""

_SHORTEST = 8
"""Characters of the shortest secret that is searched for in text of others."""

_LONGEST_KEPT = 64
"""Characters of the longest name whose result is cached."""

_DEEPEST = 5
"""How many times percent escapes are decoded."""

_STAYS_HOME = frozenset({"anthropic-workspace-id"})
_STAYS_HOME_PREFIXES = ("x-claude-code-", "x-signalbox-")

HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
)
"""RFC 9110, section 7.6.1, with the older `keep-alive` and `proxy-connection`."""

_ANTHROPIC_SECRET = "sk-ant-"  # noqa: S105 (the prefix of every Anthropic key and token, not one of them)

_SECRET_NAMES = (CLIENT_HEADER, "code", "sig")
"""Names of credentials that do not say so: the last two are the parameters of Azure Functions and of signed
URLs."""

SHOWN = 5
"""Characters shown of each end of a secret."""
SHORTEST_SHOWN = 16
SCHEMES = ("bearer", "basic")
_MASKED = re.compile(r"(?:(?:bearer|basic) )?(?:\*\*\*|.{5}\.\.\..{5})", re.IGNORECASE)


class Caller(msgspec.Struct, frozen=True):
    """Who sent a request.

    `headers` are the caller's, in order, without what is for this router alone: the secrets of configured
    clients, and the project. `has_login` says whether they hold credentials of the caller's own.
    """

    headers: Headers
    client: str | None = None
    project: Headers = ()
    """The header `x-signalbox-project`, if the caller sent it."""
    host: str | None = None
    """What the caller asked for by `Host` or `:authority`, where `headers` have another host already."""

    @classmethod
    def of(
        cls,
        headers: Headers,
        clients: Mapping[str, str],
        client: str | None = None,
        host: str | None = None,
    ) -> "Caller":
        """The one who sent these headers, and who is known to be this client."""
        project = tuple(header for header in headers if header[0].lower() == PROJECT_HEADER)
        return cls(forwardable(headers, clients), client, project, host)

    @property
    def facts(self) -> Headers:
        """The headers that rules may ask about."""
        if self.host is None:
            return self.headers + self.project
        others = tuple(header for header in self.headers if header[0].lower() != "host")
        return (("host", self.host), *others, *self.project)

    @property
    def has_login(self) -> bool:
        return self.login is not None

    @property
    def login(self) -> tuple[str, str] | None:
        """The header by which Anthropic identifies this caller."""
        return next((h for h in self.headers if h[0].lower() in LOGIN and h[1].strip()), None)


def is_secret(name: str, value: str = "") -> bool:
    """Whether a header or query parameter holds a credential. It is shown masked, and the caller's own goes
    only to providers with `auth: client`.

    Decided by the words of the name (`X_Api_Key`, `apiKey`, `Cookie2`, but not `x-max-tokens`) and by the
    content of the value, also percent-encoded.
    """
    is_named = _names_secret(name) if len(name) <= _LONGEST_KEPT else _names_secret.__wrapped__(name)
    return is_named or _VALUE.search(percent_decoded(value)) is not None


@lru_cache(1024)
def _names_secret(name: str) -> bool:
    words = (word.lower() for word in _WORDS_OF_NAME.findall(name))
    return name.lower() in _SECRET_NAMES or any(_WORD.fullmatch(word) for word in words)


def encoded(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """As bytes for the wire; a byte that is not UTF-8, and was read as a surrogate, is itself again."""
    return [
        (name.encode("utf-8", "surrogateescape"), value.encode("utf-8", "surrogateescape"))
        for name, value in headers
    ]


def percent_decoded(text: str) -> str:
    """The text without percent escapes, even if these were escaped again."""
    for _ in range(_DEEPEST if "%" in text else 0):
        if (plain := unquote(text)) == text:
            break
        text = plain
    return text


def masked_path(path: str) -> str:
    """A path with the credentials in its query masked."""
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


def identify(headers: Headers, clients: Mapping[str, str], host: str | None = None) -> Caller | None:
    """The caller, who asked for this host; None if clients are configured and the request has none of their
    secrets."""
    proofs = (_client(bare(v), clients) for name, v in headers if name.lower() in (*LOGIN, CLIENT_HEADER))
    client = next((name for name in list(proofs) if name is not None), None)
    return None if clients and client is None else Caller.of(headers, clients, client, host)


def forwardable(headers: Headers, clients: Mapping[str, str]) -> Headers:
    """The headers without those for this router alone, which are never sent on: those that hold a client's
    secret, whatever their names, and the project's."""
    return tuple(
        (name, value)
        for name, value in headers
        if name.lower() not in (CLIENT_HEADER, PROJECT_HEADER) and not _tells_client(value, clients)
    )


def path_less_clients(path: str, clients: Mapping[str, str]) -> str:
    """A path without the query parameters that hold a client's secret."""
    route, mark, query = path.partition("?")
    parts = query.split("&") if clients else []
    kept = [part for part in parts if not _tells_client(part.partition("=")[2], clients)]
    return path if len(kept) == len(parts) else f"{route}{mark if kept else ''}{'&'.join(kept)}"


def forwarded(headers: Headers, provider: Provider) -> list[tuple[str, str]]:
    """The caller's headers that may go to this provider.

    All of them for `auth: client`; else none that identifies the caller (the contract, section 5). The
    provider's own key is added later.
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
    """The parameters of the caller's query that may go to this provider, unchanged."""
    if provider.auth == "client":
        return query
    return "&".join(part for part in query.split("&") if not _is_secret_parameter(part))


def with_key(
    headers: list[tuple[str, str]], provider: Provider, key: str | None, api: Api
) -> list[tuple[str, str]]:
    """The headers of a request in this API with the provider's own key, or the token of its login, if it has
    one."""
    if key is None:
        return headers
    header = "authorization" if provider.uses_login else provider.key_header_for(api)
    return [*headers, (header, f"Bearer {key}" if header == "authorization" else key)]


def secrets_of(headers: Iterable[tuple[str, str]], path: str = "") -> tuple[str, ...]:
    """The credentials in a request's headers and query, in the forms in which a provider may repeat them in
    an error.

    Very short ones are left out: they are placeholders, and words that an error may contain (`ollama`).
    """
    query = path.partition("?")[2]
    parameters = parse_qsl(query) if query else []
    found = (one for name, value in (*headers, *parameters) if is_secret(name, value) for one in _bare(value))
    return tuple(dict.fromkeys(secret for secret in found if len(secret) >= _SHORTEST))


def own_secrets(rules: Rules) -> Iterator[str]:
    """The credentials that the rules hold: of providers and targets, of clients and of the ledger."""
    for provider in rules.providers.values():
        keys = (*provider.keys, *filter(None, (provider.quota.probe_key,)))
        yield from (key.value for key in keys if key.value and len(key.value) >= _SHORTEST)
        yield from secrets_of((*provider.headers.items(), *provider.query.items()))
    for target in (target for rule in rules.rules for equals in rule.choices for target in equals):
        yield from secrets_of(target.headers.items())
    yield from (secret for secret in rules.clients.values() if len(secret) >= _SHORTEST)
    if len(password := unquote(urlsplit(rules.ledger.url).password or "")) >= _SHORTEST:
        yield password


def leak(
    provider: Provider, path: str, headers: Iterable[tuple[str, str]], login: str | None = None
) -> str | None:
    """The name of the header, or `path`, that holds a credential of another provider; None if there is none.

    `login` is the token of the provider's own login, if it has one. This is the last check before a request
    is sent, independent of the choice of headers above.
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
    """The client with this secret. All secrets are compared, so that the time reveals nothing."""
    found = [name for name, secret in clients.items() if _same(presented, secret)]
    return found[0] if found else None


def _tells_client(value: str, clients: Mapping[str, str]) -> bool:
    """Whether a value is or contains the secret of a client. A very short secret counts only as the whole
    value, since any text may contain it."""
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
    """The secrets in a header's value: without its scheme; for Basic also the password; for cookies each
    value."""
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


def masked_secret(secret: str) -> str:
    """The first and last five characters, `sk-an...wigAA`; nothing of a secret under 16 characters."""
    if len(secret) < SHORTEST_SHOWN:
        return "***"
    return f"{secret[:SHOWN]}...{secret[-SHOWN:]}"


def is_masked(name: str, value: str) -> bool:
    """Whether a header's value is what `masked_value` shows of a credential."""
    return is_secret(name, value) and is_mask(value)


def is_mask(value: str) -> bool:
    """Whether a value may be what is shown of a credential, under whatever name."""
    return _MASKED.fullmatch(value.strip()) is not None


def path_without_masks(path: str) -> str:
    """A path without the parameters of its query that are masked."""
    route, mark, query = path.partition("?")
    parts = query.split("&")
    left = [part for part in parts if part != "***" and not is_mask(part.partition("=")[2])]
    return path if left == parts else f"{route}{mark if left else ''}{'&'.join(left)}"


def masked_value(value: str) -> str:
    """A header's value with its secret masked; the scheme stays: `Bearer sk-an...wigAA`."""
    scheme, _, secret = value.partition(" ")
    if scheme.lower() in SCHEMES:
        return f"{scheme} {masked_secret(secret.strip())}"
    return masked_secret(value)
