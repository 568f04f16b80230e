"""Prepares a request to a target that speaks the Messages API: URL, headers and body.

The request contains nothing that is meant for another provider. `openai.prepare` does the same for chat
completions.
"""

from collections.abc import Iterable

import msgspec

from signalbox.anthropic import betas, platforms
from signalbox.anthropic.api import MESSAGES
from signalbox.anthropic.field_paths import SYSTEM
from signalbox.anthropic.history import SEARCHES_MADE_HERE, made_valid, with_searches_as_text
from signalbox.anthropic.identity import IdentityTranslator
from signalbox.anthropic.images import IMAGES, without_images
from signalbox.anthropic.json_edit import Body, Edit
from signalbox.anthropic.models import takes_system_turns
from signalbox.anthropic.privacy import with_opaque_user, without_billing_block
from signalbox.anthropic.thinking import switched_off, with_placeholders, without_thinking
from signalbox.config.rules import Provider
from signalbox.routing.copilot import copilot_headers
from signalbox.routing.credentials import forwarded, with_key
from signalbox.routing.facts import Facts, without_long_context
from signalbox.routing.outgoing import (
    BETA,
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
    with_header,
    without_fields,
    without_headers,
)
from signalbox.routing.plan import Candidate

_DISABLED = b'{"type":"disabled"}'


def prepare_messages(
    candidate: Candidate,
    facts: Facts,
    incoming: Incoming,
    *,
    key: str | None,
    constraints: ProviderConstraints,
    is_only_candidate: bool,
    seed: str = "",
) -> Outgoing:
    """See `protocols.Prepare`. `seed` is not used, since the answer keeps its own ids."""
    provider = candidate.provider
    sent = betas.split(value for name, value in incoming.headers if name.lower() == BETA)
    refused = _refused(candidate, facts, sent, constraints)
    kept = _betas(provider, facts, sent, refused)
    body, notes = _body(candidate, facts, incoming.body, constraints)
    body, dropped = without_fields(body, refused | betas.dropped_with(sent, kept))
    notes += dropped
    if IMAGES in refused:
        body, changed = _without_images(body)
        notes += changed
    if provider.serves_claude:
        body, changed = _valid(body, incoming.body)
        notes += changed
    else:
        body, changed = _with_searches_as_text(body, incoming.body)
        notes += changed
        if constraints.wants_thinking:
            body, changed = _with_placeholders(body)
            notes += changed
    response_model = facts.asked if candidate.model != facts.asked else None
    headers, changed = _headers(candidate, facts, incoming, key, sent, kept)
    notes += changed
    untouched = body is incoming.body.raw and provider.is_anthropic
    if untouched:
        if not _has(headers, "content-length", "transfer-encoding"):
            headers = with_header(headers, "content-length", str(len(incoming.wire)))
    else:
        headers = without_headers(headers, "content-encoding", "transfer-encoding")
        headers = with_header(headers, "content-length", str(len(body)))
    decodes = not is_only_candidate or response_model is not None or not provider.is_anthropic
    if decodes:
        headers = with_header(headers, "accept-encoding", "identity")
    path, shown_path = paths(provider, *_asked(provider, incoming.path))
    return Outgoing(
        provider=provider,
        model=candidate.model,
        path=path,
        shown_path=shown_path,
        headers=tuple(headers),
        body=incoming.wire if untouched else body,
        is_only_candidate=is_only_candidate,
        decodes=decodes,
        estimates=not provider.is_anthropic,
        asked=facts.asked,
        notes=tuple(notes),
        login=key if provider.uses_login else None,
        translator=IdentityTranslator(
            stream=facts.stream if facts.path == MESSAGES else None,
            provider=provider.name,
            response_model=response_model,
            reshapes_errors=provider.cloud is not None,
            rewrites_errors=not provider.is_anthropic,
        ),
    )


def _body(
    candidate: Candidate, facts: Facts, body: Body, constraints: ProviderConstraints
) -> tuple[bytes, list[str]]:
    provider = candidate.provider
    thinking = without_thinking(
        body, thinking_filter(candidate, constraints), keeps_mode=constraints.wants_thinking
    )
    edits: list[Edit] = [*thinking.edits]
    change: dict[str, bytes] = {}
    notes = [dropped_thinking(thinking.count)] if thinking.count else []
    disables = constraints.disables_thinking and not provider.serves_claude
    modes = ("adaptive", "enabled") if disables else ("enabled",)
    repaired = switched_off(body, modes) if constraints.refuses_thinking and not thinking.switched_off else []
    edits += repaired
    if disables:  # without the field it would think
        change["thinking"] = _DISABLED
    if thinking.switched_off or repaired or disables:
        notes.append("switched thinking off")
    if not provider.is_anthropic:
        edits += without_billing_block(body)
        if users := with_opaque_user(body, constraints.key):
            edits += users
            notes.append("metadata.user_id replaced")
    if candidate.model is not None and candidate.model != facts.asked:
        change["model"] = msgspec.json.encode(candidate.model)
    bounded, configured = lowered_max_tokens(candidate, body), configured_edits(candidate)
    change |= bounded.set
    change = {name: value for name, value in change.items() if name not in configured.drop}
    change |= configured.set
    notes += [*bounded.notes, *configured.notes]
    return body.edited(set=change, drop=configured.drop, edits=edits), notes


def _with_placeholders(raw: bytes) -> tuple[bytes, list[str]]:
    body = Body.parse(raw)
    edits = with_placeholders(body)
    notes = [f"{len(edits)} placeholders for thinking"] if edits else []
    return body.edited(edits=edits), notes


def _without_images(raw: bytes) -> tuple[bytes, list[str]]:
    body = Body.parse(raw)
    edits = without_images(body)
    notes = [f"{len(edits)} image{'' if len(edits) == 1 else 's'} omitted"] if edits else []
    return body.edited(edits=edits), notes


def _valid(raw: bytes, came: Body) -> tuple[bytes, list[str]]:
    """The body without the parts of other providers' answers that Anthropic refuses."""
    body = came if raw is came.raw else Body.parse(raw)
    valid = made_valid(body)
    counted = (
        (valid.ids, "tool ids made valid"),
        (valid.blank, "blank texts dropped"),
        (valid.server, "server tool blocks of another provider dropped"),
    )
    return body.edited(edits=valid.edits), [f"{count} {what}" for count, what in counted if count]


def _with_searches_as_text(raw: bytes, came: Body) -> tuple[bytes, list[str]]:
    if SEARCHES_MADE_HERE not in raw:
        return raw, []
    body = came if raw is came.raw else Body.parse(raw)
    told = with_searches_as_text(body)
    return body.edited(edits=told.edits), (
        [f"{told.server} search blocks sent as text"] if told.server else []
    )


def _headers(
    candidate: Candidate,
    facts: Facts,
    incoming: Incoming,
    key: str | None,
    sent: list[str],
    kept: list[str],
) -> tuple[list[tuple[str, str]], list[str]]:
    provider = candidate.provider
    headers = forwarded(incoming.headers, provider)
    gone = {name.lower() for name, _ in incoming.headers} - {name.lower() for name, _ in headers}
    headers = with_header(headers, "host", provider.url.authority)
    headers = without_headers(headers, "expect")  # mitmproxy has answered it
    notes = []
    named = platforms.renamed(kept, provider.cloud) if provider.beta == "learn" else kept
    if named != sent:
        notes = [f"beta {value} dropped" for value in sent if value not in kept]
        notes += [f"beta {old} sent as {new}" for old, new in zip(kept, named, strict=False) if old != new]
        headers = with_header(headers, BETA, ",".join(named)) if named else without_headers(headers, BETA)
    for name, value in copilot_headers(facts) if provider.cloud == "copilot" else ():
        headers = with_header(headers, name, value)
    headers, configured = with_configured_headers(with_key(headers, provider, key, candidate.api), candidate)
    if key is not None:
        notes.append(KEY_SWAPPED)
    return headers, [*notes, *configured, *(f"header {name} dropped" for name in sorted(gone))]


def _refused(
    candidate: Candidate, facts: Facts, sent: list[str], constraints: ProviderConstraints
) -> frozenset[str]:
    """The fields and the betas among those `sent` that the target refuses, as far as that is known."""
    provider, model = candidate.provider, candidate.model
    refused = constraints.rejected
    if provider.beta == "learn":
        refused = platforms.refused_at(provider.cloud, sent, refused)
    is_as_asked = provider.is_anthropic and model == facts.asked
    if provider.serves_claude and not is_as_asked and not takes_system_turns(model or ""):
        refused |= {SYSTEM}
    return refused


def _betas(provider: Provider, facts: Facts, sent: list[str], refused: frozenset[str]) -> list[str]:
    """The values of `anthropic-beta` to send, by their usual names. The one for OAuth is sent only together
    with its credential."""
    kept = sent
    if provider.beta == "drop":
        kept = []
    elif provider.beta == "learn":
        home = set[str]() if provider.serves_claude else {betas.LONG_CONTEXT}
        kept = betas.betas_left(betas.without_betas(sent, home), refused)
    elif provider.beta != "forward":
        kept = [value for value in sent if value in provider.beta]
    if provider.beta != "forward":  # the OAuth beta belongs to the caller's login
        kept = [v for v in sent if (v in kept if v != betas.OAUTH else provider.auth == "client")]
    if not provider.serves_claude and without_long_context(facts.asked or "")[1]:
        kept = betas.without_betas(kept, {betas.LONG_CONTEXT})
    if provider.auth == "claude-login" and betas.OAUTH not in kept:  # without it the token gets a 401
        kept = [*kept, betas.OAUTH]
    return kept


def _asked(provider: Provider, asked: str) -> tuple[str, str]:
    """Path and query below the provider's URL."""
    path, _, query = asked.partition("?")
    return (provider.path if provider.path is not None and path == MESSAGES else path), query


def _has(headers: Iterable[tuple[str, str]], *names: str) -> bool:
    return any(name.lower() in names for name, _ in headers)
