"""What one target is sent: URL, headers and body of that target only, and nothing of another's."""

from collections.abc import Collection, Iterable
from urllib.parse import quote, urlencode

import msgspec

from signalbox.config.rules import Provider
from signalbox.messages import betas, fields
from signalbox.messages.body import Body, Edit
from signalbox.messages.issued import Issuer, Keeps, kept_by
from signalbox.messages.metadata import with_opaque_user
from signalbox.messages.paths import MESSAGES
from signalbox.messages.system import without_billing_block
from signalbox.messages.thinking import nothing, switched_off, without_thinking
from signalbox.routing.credentials import Headers, forwarded, is_secret, with_key
from signalbox.routing.facts import Facts
from signalbox.routing.names import without_long_context
from signalbox.routing.plan import Choice
from signalbox.translate.translation import PASSING, Translation

BETA = "anthropic-beta"
_PATH_SAFE = "/:@!$&'()*+,;=%~"


class Incoming(msgspec.Struct, frozen=True):
    """A request as it came. `wire` are the bytes received, `body` what they decode to."""

    path: str
    """With its query, as sent by the client."""
    headers: Headers
    """Less what proved a configured client."""
    wire: bytes
    body: Body


class Lessons(msgspec.Struct, frozen=True):
    """What is known of what a target takes."""

    issuer: Issuer
    """Tells whose the thinking in the history is."""
    rejected: frozenset[str] = frozenset()
    """Fields and betas that it has said it does not take; see `messages.fields`."""
    refuses_thinking: bool = False
    """Whether it has just refused the thinking that it was sent, so that none goes now."""
    refused: Collection[bytes] = frozenset()
    """Digests, under `key`, of thinking blocks that it refused before."""
    key: bytes = b""
    """The state folder's, under which also users get the names that others know them by."""


class Outgoing(msgspec.Struct, frozen=True):
    """What one target gets. `headers` hold the real credentials."""

    provider: Provider
    model: str | None
    path: str
    shown_path: str
    """The same without secrets of its query."""
    headers: Headers
    body: bytes
    lone: bool = True
    """Whether nobody else could answer: then a compressed answer may pass as it is."""
    echo_model: str | None = None
    """The name that the client asked for, where another one is sent."""
    estimate: int | None = None
    """Input tokens to show where the provider reports none at the start of a stream."""
    notes: tuple[str, ...] = ()
    """What was changed, for the debug log: names and counts, never values."""
    login: str | None = None
    """The token of the provider's own login, where it is among the headers."""
    translation: Translation = PASSING
    """What its answer goes through."""


def prepare(
    choice: Choice,
    facts: Facts,
    incoming: Incoming,
    *,
    key: str | None,
    lessons: Lessons,
    lone: bool,
) -> Outgoing:
    """The request for one target.

    `key` is the one of the provider's keys to use, or the token of its login. `lone` says that no other
    target could take over: then a compressed answer may pass as it is (the contract, section 5).
    """
    provider = choice.provider
    sent = betas.split(value for name, value in incoming.headers if name.lower() == BETA)
    kept = _betas(provider, facts, sent, lessons)
    body, notes = _body(choice, facts, incoming.body, lessons)
    body = without_fields(body, lessons.rejected | betas.dropped_with(sent, kept), notes)
    echo = facts.asked if choice.model != facts.asked else None
    estimate = None if provider.is_anthropic else facts.tokens
    headers = _headers(choice, incoming, key, sent, kept, notes)
    untouched = body is incoming.body.raw and provider.is_anthropic
    if untouched:
        if not _has(headers, "content-length", "transfer-encoding"):
            headers = _with(headers, "content-length", str(len(incoming.wire)))
    else:
        headers = _without(headers, "content-encoding", "transfer-encoding")
        headers = _with(headers, "content-length", str(len(body)))
    if not lone or echo or estimate is not None:
        headers = _with(headers, "accept-encoding", "identity")
    return Outgoing(
        provider,
        choice.model,
        *paths(provider, *_asked(provider, incoming.path)),
        tuple(headers),
        incoming.wire if untouched else body,
        lone,
        echo,
        estimate,
        tuple(notes),
        login=key if provider.auth == "claude-login" else None,
    )


def kept_thinking(provider: Provider, lessons: Lessons) -> Keeps | None:
    """Which thinking of the history this provider gets; None: all of it."""
    if lessons.refuses_thinking or provider.thinking == "strip":
        return nothing
    if provider.thinking == "keep":
        return None
    keeps = kept_by(provider.name, lessons.issuer, is_anthropic=provider.is_anthropic)
    if not lessons.refused:
        return keeps
    return lambda block: keeps(block) and block.digest(lessons.key) not in lessons.refused


def _body(choice: Choice, facts: Facts, body: Body, lessons: Lessons) -> tuple[bytes, list[str]]:
    provider = choice.provider
    keeps = kept_thinking(provider, lessons)
    edits: list[Edit] = []
    notes = []
    if keeps is not None:
        thinking = without_thinking(body, keeps)
        edits += thinking.edits
        if thinking.count:
            notes.append(f"dropped {thinking.count} thinking blocks")
        mended = switched_off(body) if lessons.refuses_thinking and not thinking.switched_off else []
        edits += mended
        if thinking.switched_off or mended:
            notes.append("switched thinking off")
    if not provider.is_anthropic:
        edits += without_billing_block(body)
        if users := with_opaque_user(body, lessons.key):
            edits += users
            notes.append("metadata.user_id replaced")
    change: dict[str, bytes] = {}
    if choice.model is not None and choice.model != facts.asked:
        change["model"] = msgspec.json.encode(choice.model)
        notes.append(f"model remap: {facts.asked} → {choice.model}")
    change |= lowered_max_tokens(choice, body, notes)
    given, drop = by_the_rules(choice, notes)
    change = {name: value for name, value in change.items() if name not in drop} | given
    return body.edited(set=change, drop=drop, edits=edits), notes


def lowered_max_tokens(choice: Choice, body: Body, notes: list[str]) -> dict[str, bytes]:
    """`max_tokens` as the provider's upper bound wants it, where that is lower."""
    bound = next((n for glob, n in choice.provider.max_tokens if glob.matches(choice.model or "")), None)
    if bound is None or (body.get("max_tokens", int) or 0) <= bound:
        return {}
    notes.append(f"max_tokens lowered to {bound}")
    return {"max_tokens": str(bound).encode()}


def by_the_rules(choice: Choice, notes: list[str]) -> tuple[dict[str, bytes], set[str]]:
    """Fields of the outgoing body that the provider and then the target set, and that they drop."""
    change: dict[str, bytes] = {}
    drop: set[str] = set()
    for edit in (choice.provider.body, choice.target.body):
        change |= {name: msgspec.json.encode(value) for name, value in edit.set.items()}
        drop = (drop - edit.set.keys()) | set(edit.drop)
        change = {name: value for name, value in change.items() if name not in edit.drop}
        notes += [f"body field {name} set" for name in edit.set]
        notes += [f"body field {name} dropped" for name in edit.drop]
    return change, drop


def without_fields(raw: bytes, gone: Collection[str], notes: list[str]) -> bytes:
    """The body without what the provider does not take, and what belongs to a beta that stays home."""
    if not gone:
        return raw
    body = Body.parse(raw)
    edits = fields.without(body, gone)
    if edits:
        notes.append(f"dropped {', '.join(sorted(gone))} from the body")
    return body.edited(edits=edits)


def _headers(
    choice: Choice,
    incoming: Incoming,
    key: str | None,
    sent: list[str],
    kept: list[str],
    notes: list[str],
) -> list[tuple[str, str]]:
    provider = choice.provider
    headers = forwarded(incoming.headers, provider)
    gone = {name.lower() for name, _ in incoming.headers} - {name.lower() for name, _ in headers}
    headers = _with(headers, "host", provider.url.authority)
    headers = _without(headers, "expect")  # mitmproxy has answered it
    if kept != sent:
        notes += [f"beta {value} dropped" for value in sent if value not in kept]
        headers = _with(headers, BETA, ",".join(kept)) if kept else _without(headers, BETA)
    headers = with_headers_of_the_rules(with_key(headers, provider, key), choice, notes)
    notes += [f"header {name} dropped" for name in sorted(gone)]
    return headers


def with_headers_of_the_rules(
    headers: list[tuple[str, str]], choice: Choice, notes: list[str]
) -> list[tuple[str, str]]:
    """With those that the provider and then the target set, and without those that they empty."""
    for extra in (choice.provider.headers, choice.target.headers):
        for name, value in extra.items():
            headers = _with(headers, name, value) if value else _without(headers, name)
            notes.append(f"header {name} {'set' if value else 'dropped'}")
    return headers


def _betas(provider: Provider, facts: Facts, sent: list[str], lessons: Lessons) -> list[str]:
    """The values of `anthropic-beta` that go there; the OAuth one is a credential's and stays home."""
    kept = sent
    if provider.beta == "drop":
        kept = []
    elif provider.beta == "learn":
        home = set[str]() if provider.is_anthropic else {betas.LONG_CONTEXT}
        kept = betas.betas_left(betas.without(sent, home), lessons.rejected)
    elif provider.beta != "forward":
        kept = [value for value in sent if value in provider.beta]
    if provider.beta != "forward":  # it belongs to the caller's login, and goes where that goes
        kept = [v for v in sent if (v in kept if v != betas.OAUTH else provider.auth == "client")]
    if not provider.is_anthropic and without_long_context(facts.asked or "")[1]:
        kept = betas.without(kept, {betas.LONG_CONTEXT})
    if provider.auth == "claude-login" and betas.OAUTH not in kept:  # without it the token gets a 401
        kept = [*kept, betas.OAUTH]
    return kept


def _asked(provider: Provider, asked: str) -> tuple[str, str]:
    """Path and query below the provider's URL."""
    path, _, query = asked.partition("?")
    return (provider.path if provider.path is not None and path == MESSAGES else path), query


def paths(provider: Provider, path: str, query: str = "") -> tuple[str, str]:
    """The path to send, with the provider's prefix and query, and the same without secrets of its query."""
    shown = {name: "***" if is_secret(name) else value for name, value in provider.query.items()}
    base = f"{provider.url.path}{quote(path, safe=_PATH_SAFE)}"
    queries = ("&".join(filter(None, (query, urlencode(more, safe="*")))) for more in (provider.query, shown))
    sent, visible = (f"{base}?{query}" if query else base for query in queries)
    return sent, visible


def _has(headers: Iterable[tuple[str, str]], *names: str) -> bool:
    return any(name.lower() in names for name, _ in headers)


def _with(headers: Iterable[tuple[str, str]], name: str, value: str) -> list[tuple[str, str]]:
    """The headers with this one set once, where it first stood, else at the end."""
    result: list[tuple[str, str]] = []
    done = False
    for old in headers:
        if old[0].lower() != name.lower():
            result.append(old)
        elif not done:
            result.append((old[0], value))
            done = True
    return result if done else [*result, (name, value)]


def _without(headers: Iterable[tuple[str, str]], *names: str) -> list[tuple[str, str]]:
    return [header for header in headers if header[0].lower() not in {name.lower() for name in names}]
