"""The request to one target, and the edits that all protocols share."""

from collections.abc import Collection, Iterable, Mapping
from functools import cached_property
from urllib.parse import quote, urlencode

import msgspec

from signalbox.anthropic import field_paths
from signalbox.anthropic.identity import IdentityTranslator
from signalbox.anthropic.issued import Issuer, ThinkingFilter, kept_by
from signalbox.anthropic.json_edit import Body
from signalbox.anthropic.thinking import nothing
from signalbox.config.rules import CLAUDE_APIS, Provider
from signalbox.routing.credentials import Headers, forwarded_query, masked_path, secrets_of
from signalbox.routing.plan import Candidate
from signalbox.routing.translator import Translator

BETA = "anthropic-beta"
KEY_SWAPPED = "key swapped"
_PATH_SAFE = "/:@!$&'()*+,;=%~"


class Incoming(msgspec.Struct, frozen=True):
    """A request as received. `wire` are the bytes of its body, `body` is the decoded object."""

    path: str
    """As sent by the client, with the query."""
    headers: Headers
    """Without the secrets of configured clients."""
    wire: bytes
    body: Body


class ProviderConstraints(msgspec.Struct, frozen=True):
    """What is known about what a target accepts."""

    issuer: Issuer
    """Returns the provider that issued a thinking block of the history."""
    rejected: frozenset[str] = frozenset()
    """Fields and betas that it refused; see `anthropic.field_paths`."""
    refuses_thinking: bool = False
    """Whether it has just refused the thinking in the request: none is sent now."""
    disables_thinking: bool = False
    """Whether its refusal means that thinking must be disabled."""
    wants_thinking: bool = False
    """Whether it requires thinking with each answer of the history, also with those of other providers."""
    refused: Collection[bytes] = frozenset()
    """Digests, under `key`, of thinking blocks that it refused before."""
    key: bytes = b""
    """The key of the state folder, which user ids are hashed with too."""
    account: str = ""
    """The account of the provider's login, if it wants that named."""
    kin: frozenset[str] = frozenset()
    """The providers whose signed thinking it takes besides its own."""


class Outgoing(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """The request to one target. `headers` hold the real credentials."""

    provider: Provider
    model: str | None
    path: str
    shown_path: str
    """`path` with the secrets in its query masked."""
    headers: Headers
    body: bytes
    is_only_candidate: bool = True
    """Whether no other attempt could follow."""
    decodes: bool = True
    """Whether `identity` is asked for, and an answer that is compressed nevertheless is decoded."""
    estimates: bool = False
    """Whether input tokens are estimated if the provider reports none at the start of a stream."""
    asked: str | None = None
    """The model that the client asked for."""
    notes: tuple[str, ...] = ()
    """What was changed besides the model: names and counts, never values."""
    login: str | None = None
    """The token of the provider's own login, if it is in the headers."""
    translator: Translator = IdentityTranslator()
    """Reads the answer to it."""

    @property
    def changes(self) -> tuple[str, ...]:
        """What was changed, one line per change: `model claude-sonnet-4-5 → glm-4.7`, `key swapped`."""
        return (f"model {self.asked} → {self.model}", *self.notes) if self.is_renamed else self.notes

    @property
    def is_renamed(self) -> bool:
        """Whether the model sent is not the one asked for."""
        return self.model not in (None, self.asked)

    @cached_property
    def secrets(self) -> tuple[str, ...]:
        """The credentials in it, which are removed from the provider's errors."""
        return secrets_of(self.headers, self.path)


def thinking_filter(candidate: Candidate, constraints: ProviderConstraints) -> ThinkingFilter:
    """The filter for thinking blocks of the history. Thinking of another protocol stays with the provider
    that it came from, and with none of the Claude APIs, whatever the rules say."""
    provider = candidate.provider
    is_claudes = candidate.api in CLAUDE_APIS
    refused, key = constraints.refused, constraints.key
    if constraints.refuses_thinking or provider.thinking == "strip":
        return nothing
    if provider.thinking == "keep":
        takes = None if is_claudes else provider.name
        return lambda block: (
            block.translated_from in (None, takes) and not (refused and block.digest(key) in refused)
        )
    in_group = candidate.serves_claude
    kin = constraints.kin if in_group else frozenset[str]()
    keeps = kept_by(provider.name, constraints.issuer, takes_unknown=in_group, kin=kin)
    return lambda block: (
        not (is_claudes and block.is_translated)
        and keeps(block)
        and not (refused and block.digest(key) in refused)
    )


def dropped_thinking(count: int) -> str:
    """`2 thinking blocks dropped`."""
    return f"{count} thinking block{'' if count == 1 else 's'} dropped"


class BodyChange(msgspec.Struct, frozen=True):
    """Fields of a body that are set, as JSON, and dropped; `notes` say so."""

    set: Mapping[str, bytes] = {}
    drop: Collection[str] = frozenset()
    notes: tuple[str, ...] = ()


def lowered_max_tokens(candidate: Candidate, body: Body) -> BodyChange:
    """Lowers `max_tokens` to the provider's upper bound, if it is above that."""
    bounds = candidate.provider.max_tokens
    bound = next((most for glob, most in bounds if glob.matches(candidate.model or "")), None)
    if bound is None or (body.get("max_tokens", int) or 0) <= bound:
        return BodyChange()
    return BodyChange({"max_tokens": str(bound).encode()}, notes=(f"max_tokens lowered to {bound}",))


def configured_edits(candidate: Candidate) -> BodyChange:
    """Fields of the outgoing body that the provider, and then the target, set and drop."""
    change: dict[str, bytes] = {}
    drop: set[str] = set()
    notes: list[str] = []
    for edit in (candidate.provider.body, candidate.target.body):
        change |= {name: msgspec.json.encode(value) for name, value in edit.set.items()}
        drop = (drop - edit.set.keys()) | set(edit.drop)
        change = {name: value for name, value in change.items() if name not in edit.drop}
        notes += [f"body field {name} set" for name in edit.set]
        notes += [f"body field {name} dropped" for name in edit.drop]
    return BodyChange(change, drop, tuple(notes))


def without_fields(raw: bytes, gone: Collection[str]) -> tuple[bytes, list[str]]:
    """The body without the fields `gone`, and the notes."""
    if not gone:
        return raw, []
    body = Body.parse(raw)
    edits = field_paths.edits_without(body, gone)
    notes = [f"dropped {', '.join(sorted(gone))} from the body"] if edits else []
    return body.edited(edits=edits), notes


def with_configured_headers(
    headers: list[tuple[str, str]], candidate: Candidate
) -> tuple[list[tuple[str, str]], list[str]]:
    """The headers with those that the provider, and then the target, set, without those that they set to an
    empty value; and the notes."""
    notes = []
    for extra in (candidate.provider.headers, candidate.target.headers):
        for name, value in extra.items():
            headers = with_header(headers, name, value) if value else without_headers(headers, name)
            notes.append(f"header {name} {'set' if value else 'dropped'}")
    return headers, notes


def paths(provider: Provider, path: str, query: str = "") -> tuple[str, str]:
    """The path to send, with the provider's prefix and query, and the same with its secrets masked.

    `query` is the caller's.
    """
    base = f"{provider.url.path}{quote(path, safe=_PATH_SAFE)}"
    query = "&".join(filter(None, (forwarded_query(query, provider), urlencode(provider.query, safe="*"))))
    sent = f"{base}?{query}" if query else base
    return sent, masked_path(sent)


def with_header(headers: Iterable[tuple[str, str]], name: str, value: str) -> list[tuple[str, str]]:
    """The headers with this one set once: in its first place, else at the end."""
    result: list[tuple[str, str]] = []
    done = False
    for old in headers:
        if old[0].lower() != name.lower():
            result.append(old)
        elif not done:
            result.append((old[0], value))
            done = True
    return result if done else [*result, (name, value)]


def without_headers(headers: Iterable[tuple[str, str]], *names: str) -> list[tuple[str, str]]:
    return [header for header in headers if header[0].lower() not in {name.lower() for name in names}]
