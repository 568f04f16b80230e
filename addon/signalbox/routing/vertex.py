"""Prepares a request to Claude on Google's Vertex AI: the Messages API at paths of its own (clouds.md, 2).

The path names the model and whether the answer is streamed; the body has `anthropic_version` and no `model`.
Counting tokens has one path for all models, so there the body names the model.
"""

from urllib.parse import quote

import msgspec

from signalbox.anthropic.api import COUNT_TOKENS
from signalbox.anthropic.json_edit import Body
from signalbox.routing.facts import Facts
from signalbox.routing.outgoing import (
    Incoming,
    Outgoing,
    ProviderConstraints,
    configured_edits,
    paths,
    with_header,
    without_headers,
)
from signalbox.routing.plan import Candidate
from signalbox.routing.prepare import prepare_messages

VERSION = b'"vertex-2023-10-16"'
"""The value of `anthropic_version`; `body: {set: {anthropic_version: ...}}` sends another."""

_MODELS = "/publishers/anthropic/models/"
_VERSION = "@"


def prepare_vertex(
    candidate: Candidate,
    facts: Facts,
    incoming: Incoming,
    *,
    key: str | None,
    constraints: ProviderConstraints,
    is_only_candidate: bool,
    seed: str = "",
) -> Outgoing:
    """See `protocols.Prepare`."""
    outgoing = prepare_messages(
        candidate,
        facts,
        incoming,
        key=key,
        constraints=constraints,
        is_only_candidate=is_only_candidate,
        seed=seed,
    )
    counts = facts.path == COUNT_TOKENS
    body = _body(candidate, Body.parse(outgoing.body), counts=counts)
    headers = without_headers(outgoing.headers, "anthropic-version")
    path, shown_path = paths(candidate.provider, _path(candidate, facts, counts=counts))
    return msgspec.structs.replace(
        outgoing,
        path=path,
        shown_path=shown_path,
        headers=tuple(with_header(headers, "content-length", str(len(body)))),
        body=body,
    )


def _path(candidate: Candidate, facts: Facts, *, counts: bool) -> str:
    if counts:
        return f"{_MODELS}count-tokens:rawPredict"
    if candidate.provider.path is not None:
        return candidate.provider.path
    model = quote(candidate.model or facts.asked or "", safe="@:")
    return f"{_MODELS}{model}:{'streamRawPredict' if facts.stream else 'rawPredict'}"


def _body(candidate: Candidate, body: Body, *, counts: bool) -> bytes:
    change: dict[str, bytes] = {}
    if "anthropic_version" not in body and "anthropic_version" not in configured_edits(candidate).drop:
        change["anthropic_version"] = VERSION
    if counts:
        change["model"] = msgspec.json.encode((candidate.model or "").partition(_VERSION)[0])
    if (form := body.value("output_format")) is not None:  # the older name of a field of `output_config`
        config = body.get("output_config", dict[str, msgspec.Raw]) or {}
        change["output_config"] = msgspec.json.encode({"format": msgspec.Raw(form), **config})
    return body.edited(set=change, drop=("output_format",) if counts else ("model", "output_format"))
