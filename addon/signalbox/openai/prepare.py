"""Prepares a request to a target that speaks chat completions.

Of the caller's headers only `user-agent` is sent: the others are Anthropic's, or identify the caller. Some
providers refuse requests whose `user-agent` is not that of a coding agent (reference/providers.md).
"""

from collections.abc import Sequence
from hashlib import blake2b

from msgspec.structs import replace

from signalbox import __version__
from signalbox.anthropic.json_edit import Body, Edit
from signalbox.anthropic.thinking import without_thinking
from signalbox.config.rules import Provider
from signalbox.openai.dialects import Dialect, dialect_of
from signalbox.openai.refusals import taught
from signalbox.openai.request import ChatRequest, to_chat
from signalbox.openai.translator import ChatTranslator
from signalbox.routing.credentials import secrets_of, with_key
from signalbox.routing.facts import Facts
from signalbox.routing.outgoing import (
    KEY_SWAPPED,
    Incoming,
    Outgoing,
    ProviderConstraints,
    configured_edits,
    dropped_thinking,
    lowered_max_tokens,
    paths,
    thinking_filter,
    with_configured_headers,
    without_fields,
)
from signalbox.routing.plan import Candidate

PATH = "/chat/completions"


def dialect(provider: Provider) -> Dialect:
    """The dialect of chat completions that this provider speaks."""
    return dialect_of(provider.dialect, provider.url.host, provider.url.port)


def prepare_chat(
    candidate: Candidate,
    facts: Facts,
    incoming: Incoming,
    *,
    key: str | None,
    constraints: ProviderConstraints,
    is_only_candidate: bool = False,
    seed: str,
) -> Outgoing:
    """See `protocols.Prepare`. `is_only_candidate` is not used, since an answer is always translated. Raises
    UntranslatableError."""
    provider, model = candidate.provider, candidate.model or facts.asked or ""
    row = taught(dialect(provider), model, constraints.rejected)
    asked, notes = _for_this_provider(candidate, incoming.body, constraints)
    session = _alias(facts.session, constraints.key)
    request = to_chat(asked, model=model, dialect=row, provider=provider.name, session=session)
    edits = configured_edits(candidate)
    body = request.body
    if edits.set or edits.drop:
        body = Body.parse(body).edited(set=edits.set, drop=edits.drop)
    body, dropped = without_fields(body, constraints.rejected)
    request = replace(request, body=body)
    headers, changed = _headers(candidate, incoming, request, key, session)
    notes += [*request.notes, *edits.notes, *dropped, *changed]
    sent_path, shown_path = paths(
        _continuing(provider, row) if request.continues else provider,
        PATH if provider.path is None else provider.path,
    )
    return Outgoing(
        provider=provider,
        model=model,
        path=sent_path,
        shown_path=shown_path,
        headers=tuple(headers),
        body=request.body,
        is_only_candidate=False,
        estimates=True,
        asked=facts.asked,
        notes=tuple(notes),
        translator=ChatTranslator(
            request=request,
            dialect=row,
            provider=provider.name,
            model=model,
            seed=seed,
            response_model=facts.asked,
            secrets=secrets_of(tuple(headers), sent_path),
        ),
    )


def _for_this_provider(
    candidate: Candidate, body: Body, constraints: ProviderConstraints
) -> tuple[Body, list[str]]:
    """The Messages body without thinking of other providers, with `max_tokens` bounded, and notes on both."""
    edits: Sequence[Edit] = ()
    notes = []
    if keeps := thinking_filter(candidate.provider, constraints):
        dropped = without_thinking(body, keeps, keeps_mode=True)
        edits = dropped.edits
        if dropped.count:
            notes.append(dropped_thinking(dropped.count))
    bounded = lowered_max_tokens(candidate, body)
    raw = body.edited(set=bounded.set, edits=edits)
    return body if raw is body.raw else Body.parse(raw), [*notes, *bounded.notes]


def _continuing(provider: Provider, row: Dialect) -> Provider:
    """The provider, with the path at which it continues an assistant message, if that is another path."""
    url, path = provider.url, row.prefill.path
    at_home = dialect_of(None, url.host, url.port).name == row.name
    is_elsewhere = path and provider.path is None and at_home
    return replace(provider, url=replace(url, path=path)) if is_elsewhere else provider


def _alias(session: str | None, key: bytes) -> str | None:
    """A name for the conversation, for the provider's prompt cache. The session's id itself is not sent."""
    if session is None:
        return None
    return blake2b(session.encode(errors="surrogatepass"), key=key, digest_size=16).hexdigest()


def _headers(
    candidate: Candidate,
    incoming: Incoming,
    request: ChatRequest,
    key: str | None,
    session: str | None,
) -> tuple[list[tuple[str, str]], list[str]]:
    provider = candidate.provider
    agent = next((value for name, value in incoming.headers if name.lower() == "user-agent"), "")
    headers = [
        ("host", provider.url.authority),
        ("content-type", "application/json"),
        ("content-length", str(len(request.body))),
        ("accept", "text/event-stream" if request.stream else "application/json"),
        ("accept-encoding", "identity"),
        ("user-agent", agent or f"signalbox/{__version__}"),
    ]
    if (header := dialect(provider).session_header) and session:
        headers.append((header, session))
    headers, notes = with_configured_headers(with_key(headers, provider, key, candidate.api), candidate)
    return headers, notes if key is None else [KEY_SWAPPED, *notes]
