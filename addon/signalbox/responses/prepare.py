"""Prepares a request to a target that speaks the Responses API."""

import msgspec

from signalbox import __version__
from signalbox.anthropic.api import COUNT_TOKENS
from signalbox.anthropic.json_edit import UNREADABLE, Body
from signalbox.anthropic.translated_reader import AnswerContext
from signalbox.config.rules import Provider
from signalbox.responses import counting
from signalbox.responses.dialects import Dialect, dialect_of
from signalbox.responses.reasoning import reasoning_owner
from signalbox.responses.refusals import taught
from signalbox.responses.request import to_responses
from signalbox.responses.translator import ResponsesTranslator
from signalbox.routing.copilot import copilot_headers
from signalbox.routing.credentials import secrets_of
from signalbox.routing.facts import Facts
from signalbox.routing.outgoing import (
    BodyChange,
    Incoming,
    Outgoing,
    ProviderConstraints,
    configured_edits,
    paths,
    without_fields,
)
from signalbox.routing.plan import Candidate
from signalbox.routing.translated import messages_body, session_alias, translated_headers
from signalbox.routing.translator import Translator

PATH = "/responses"
_MERGED = ("text", "reasoning")
"""Fields whose members are set by the rules one by one."""


def dialect(provider: Provider) -> Dialect:
    """The dialect of the Responses API that this provider speaks."""
    return dialect_of(provider.dialect, provider.url.host, provider.url.port)


def prepare_responses(
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
    counts = facts.path == COUNT_TOKENS
    row = taught(dialect(provider), model, constraints.rejected)
    asked, notes = messages_body(candidate, incoming.body, constraints)
    session = session_alias(facts.session, constraints.key)
    request = to_responses(
        asked,
        model=model,
        dialect=row,
        owner=reasoning_owner(
            provider.name,
            account=constraints.account or provider.account_of(key),
            model=model,
            key=constraints.key,
        ),
        session=session,
        counts=counts,
    )
    edits = BodyChange() if counts else configured_edits(candidate)
    body = _edited(request.body, edits)
    body, dropped = without_fields(body, constraints.rejected)
    more = _own_headers(row, facts, session, constraints.account)
    headers, changed = translated_headers(candidate, incoming, body, key, stream=request.streams, more=more)
    notes += [*request.notes, *edits.notes, *dropped, *changed]
    path = counting.PATH if counts else PATH if provider.path is None else provider.path
    sent_path, shown_path = paths(provider, path)
    reads = ResponsesTranslator(
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
        only_searches=request.only_searches,
        owner=request.owner,
        may_refuse_late=request.has_reasoning,
        remedy="run codex login" if provider.auth == "codex-login" else "",
    )
    translator: Translator = counting.CountTranslator(reads) if counts else reads
    return Outgoing(
        provider=provider,
        model=model,
        path=sent_path,
        shown_path=shown_path,
        headers=tuple(headers),
        body=body,
        is_only_candidate=False,
        estimates=True,
        asked=facts.asked,
        notes=tuple(notes),
        login=key if provider.uses_login else None,
        translator=translator,
    )


def _own_headers(row: Dialect, facts: Facts, session: str | None, account: str) -> list[tuple[str, str]]:
    """The headers that only this kind of provider gets. Codex's backend is told who asks, and that it is not
    Codex (openai-responses.md, 9)."""
    if row.name == "copilot":
        return copilot_headers(facts)
    if row.name != "codex":
        return []
    headers = [("user-agent", f"signalbox/{__version__}"), ("originator", "signalbox")]
    headers += [("chatgpt-account-id", account)] if account else []
    return [*headers, ("session-id", session)] if session else headers


def _edited(raw: bytes, edits: BodyChange) -> bytes:
    """The body with what the rules set and drop."""
    if not (edits.set or edits.drop):
        return raw
    body = Body.parse(raw)
    change = dict(edits.set)
    for name in change.keys() & set(_MERGED):
        change[name] = _merged(body.value(name), change[name])
    return body.edited(set=change, drop=edits.drop)


def _merged(ours: bytes | memoryview | None, theirs: bytes) -> bytes:
    """The object of the rules over ours; anything else replaces it."""
    given = msgspec.json.decode(theirs)
    try:
        own = msgspec.json.decode(ours) if ours is not None else {}
    except UNREADABLE:
        own = {}
    is_both = isinstance(given, dict) and isinstance(own, dict)
    return msgspec.json.encode({**own, **given}) if is_both else theirs
