"""What the router notes in a flow: metadata, comment and marker (the contract, section 10).

mitmproxy writes metadata into saved flows, so they hold plain values only.
"""

from collections.abc import Mapping
from typing import Any

from mitmproxy import http

from signalbox.anthropic.api import TOKEN_FIELDS
from signalbox.exchange import Exchange
from signalbox.inspect.masking import masked_text
from signalbox.record import console
from signalbox.record.entry import AttemptRow, Entry, milliseconds
from signalbox.routing.attempts import Attempt
from signalbox.routing.match import conditions
from signalbox.routing.plan import Skip

METADATA = "signalbox"
"""The key in `Flow.metadata` of what the router notes."""

FAILED_ATTEMPT = ":x:"
AFTER_FAILOVER = ":repeat:"
REDIRECTED = ":twisted_rightwards_arrows:"
ERROR = ":red_circle:"


def noted(flow: http.HTTPFlow) -> Mapping[str, Any]:
    """What the router has noted in this flow; empty where it has not handled it."""
    found = flow.metadata.get(METADATA)
    return found if isinstance(found, dict) else {}


def annotate_attempt(flow: http.HTTPFlow, exchange: Exchange) -> None:
    """The flow's request is that of the attempt under way, in its `api`. `masked` says whether its
    credentials are; `ts` is when the client's request came, as the ledger has it."""
    attempt = exchange.attempts[-1] if exchange.attempts else None
    facts, model = exchange.facts, exchange.model
    provider = exchange.provider.shown if exchange.provider is not None else ""
    outgoing = attempt.outgoing if attempt is not None else None
    flow.metadata[METADATA] = {
        "rule": exchange.label,
        "reason": exchange.reason,
        "ts": milliseconds(exchange.ts),
        "provider": provider,
        "api": attempt.candidate.api if attempt is not None and outgoing is not None else "anthropic",
        "model": _text(model),
        "asked_model": _text(facts.asked if facts is not None else None),
        "attempt": max(len(exchange.attempts), 1),
        "attempts": len(exchange.attempts),
        "session": _text(facts.session if facts is not None else None),
        "client": exchange.caller.client or "",
        "changes": [_text(change) for change in (outgoing.changes if outgoing is not None else ())],
        "conditions": [] if exchange.rule is None else conditions(exchange.rule.match),
        "skipped": [_text(_skip(skip)) for skip in exchange.skipped],
        "failed": [_text(_failed(one)) for one in exchange.attempts[:-1]],
        "masked": exchange.rules.inspect.secrets == "mask",
        **dict.fromkeys(TOKEN_FIELDS, 0),
        "cost": None,
    }


def annotate_failed(
    flow: http.HTTPFlow, exchange: Exchange, attempt: Attempt, row: AttemptRow, following: str
) -> None:
    """`flow` is a copy that shows an attempt that failed; `following` says who was asked next."""
    _note_usage(flow, exchange, row)
    exchange.failed_notes.append(flow.metadata[METADATA])
    line = console.failover_line(attempt.provider.shown, attempt.label, attempt.detail, following)
    flow.comment = _text(masked_text(line, exchange))
    flow.marked = _note_marker(flow, FAILED_ATTEMPT)


def annotate_answer(flow: http.HTTPFlow, exchange: Exchange, entry: Entry) -> None:
    """The request is over; its flow shows the last attempt. A comment or marker made by hand stays."""
    if METADATA not in flow.metadata or exchange.outgoing is None:
        lengths = {name: value for name, value in noted(flow).items() if name.endswith("_length")}
        annotate_attempt(flow, exchange)
        flow.metadata[METADATA] |= lengths
    _note_usage(flow, exchange, entry.attempt_rows[-1] if entry.attempt_rows else None)
    for failed in exchange.failed_notes:
        failed["attempts"] = len(exchange.attempts)
    line = f"{console.request_line(entry, prompts=False)} rule={console.name(entry.rule or '-')}"
    attempts = f" attempts={console.name(entry.attempts)}" if entry.attempts else ""
    flow.comment = flow.comment or _text(masked_text(line + attempts, exchange))
    flow.marked = flow.marked or _note_marker(flow, _marker(exchange, entry))


def _note_usage(flow: http.HTTPFlow, exchange: Exchange, row: AttemptRow | None) -> None:
    values = {**noted(flow), "attempts": len(exchange.attempts)}
    if row is not None:
        values |= {name: getattr(row, name) for name in TOKEN_FIELDS}
        values["cost"] = row.cost
    flow.metadata[METADATA] = values


def _note_marker(flow: http.HTTPFlow, marker: str) -> str:
    """So that a marker set by hand is told from ours."""
    flow.metadata[METADATA]["marker"] = marker
    return marker


def _marker(exchange: Exchange, entry: Entry) -> str:
    if entry.status == "error":
        return ERROR
    if len(exchange.attempts) > 1:
        return AFTER_FAILOVER
    is_spent = any(skip.reason.partition(":")[0] in ("quota", "budget") for skip in exchange.skipped)
    return REDIRECTED if is_spent else ""


def _failed(attempt: Attempt) -> str:
    """`zai/glm-4.7: 529, overloaded_error: the service is overloaded`."""
    target = "/".join(filter(None, (attempt.provider.shown, attempt.model)))
    return f"{target}: {', '.join(filter(None, (attempt.label, attempt.detail)))}"


def _skip(skip: Skip) -> str:
    return f"{skip.provider}/{skip.model}: {skip.why}" if skip.model else f"{skip.provider}: {skip.why}"


def _text(text: str | None) -> str:
    """Without lone surrogates, which cannot be saved."""
    return (text or "").encode(errors="replace").decode()
