"""Prepares a request to a target that speaks chat completions."""

from msgspec.structs import replace

from signalbox.anthropic.json_edit import Body
from signalbox.anthropic.translated_reader import AnswerContext
from signalbox.config.rules import Provider
from signalbox.openai.dialects import Dialect, dialect_of
from signalbox.openai.refusals import taught
from signalbox.openai.request import to_chat
from signalbox.openai.translator import ChatTranslator
from signalbox.routing.copilot import copilot_headers
from signalbox.routing.credentials import secrets_of
from signalbox.routing.facts import Facts
from signalbox.routing.outgoing import (
    Incoming,
    Outgoing,
    ProviderConstraints,
    configured_edits,
    paths,
    without_fields,
)
from signalbox.routing.plan import Candidate
from signalbox.routing.translated import messages_body, session_alias, translated_headers

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
    asked, notes = messages_body(candidate, incoming.body, constraints)
    session = session_alias(facts.session, constraints.key)
    request = to_chat(asked, model=model, dialect=row, provider=provider.name, session=session)
    edits = configured_edits(candidate)
    body = request.body
    if edits.set or edits.drop:
        body = Body.parse(body).edited(set=edits.set, drop=edits.drop)
    body, dropped = without_fields(body, constraints.rejected)
    request = replace(request, body=body)
    named = [(row.session_header, session)] if row.session_header and session else []
    if row.name == "copilot":
        named += copilot_headers(facts)
    headers, changed = translated_headers(
        candidate, incoming, request.body, key, stream=request.stream, more=named
    )
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
            AnswerContext(
                provider=provider.name,
                model=model,
                seed=seed,
                names=request.names,
                wants_stream=request.stream,
                shows_thinking=request.shows_thinking,
                response_model=facts.asked,
                secrets=secrets_of(tuple(headers), sent_path),
            ),
            request,
            row,
        ),
    )


def _continuing(provider: Provider, row: Dialect) -> Provider:
    """The provider, with the path at which it continues an assistant message, if that is another path."""
    url, path = provider.url, row.prefill.path
    at_home = dialect_of(None, url.host, url.port).name == row.name
    is_elsewhere = path and provider.path is None and at_home
    return replace(provider, url=replace(url, path=path)) if is_elsewhere else provider
