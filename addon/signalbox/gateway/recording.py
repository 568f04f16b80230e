"""What is written down of one request."""

from datetime import timedelta

from signalbox.gateway.delivery import milliseconds
from signalbox.messages.errors import error_type
from signalbox.messages.usage import Usage
from signalbox.record.cost import cost
from signalbox.record.entry import Attempt, Entry, Status
from signalbox.routing.exchange import Exchange
from signalbox.routing.tried import Tried


def entry(exchange: Exchange, http_status: int | None) -> Entry:
    facts, provider, reader = exchange.facts, exchange.provider, exchange.reader
    usage = reader.usage if reader is not None else Usage()
    model = exchange.model or ""
    tokens = (
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_creation_input_tokens,
        usage.cache_read_input_tokens,
    )
    first = exchange.first_byte
    return Entry(
        ts=exchange.ts,
        model=(facts.asked if facts is not None else None) or "",
        backend=provider.shown if provider is not None else "",
        input_tokens=tokens[0],
        output_tokens=tokens[1],
        cache_creation_input_tokens=tokens[2],
        cache_read_input_tokens=tokens[3],
        status=_status(exchange, http_status),
        upstream_model=model,
        rule=exchange.label,
        reason=exchange.reason,
        attempts=" ".join(exchange.attempts),
        latency_ms=milliseconds(exchange),
        first_byte_ms=None if first is None else round((first - exchange.started) * 1000),
        cost=cost(provider.prices, model, *tokens) if provider is not None else None,
        session=facts.session if facts is not None else None,
        client=exchange.caller.client,
        tier=facts.tier if facts is not None else None,
        http_status=http_status,
        error_type=_error_type(exchange, http_status),
        agent=facts.agent if facts is not None else None,
        stream=facts.stream if facts is not None else None,
        request_id=exchange.request_id,
        tried=tuple(_attempt(exchange, tried) for tried in exchange.tried if tried.label),
        snippet=facts.snippet if facts is not None and exchange.rules.log.prompts else "",
    )


def _attempt(exchange: Exchange, tried: Tried) -> Attempt:
    began, ended, usage, outcome = tried.began, tried.ended or tried.began, tried.usage, tried.outcome
    return Attempt(
        provider=tried.provider,
        model=tried.model or "",
        key=None if tried.key_index is None else tried.key_index + 1,
        started=exchange.ts + timedelta(seconds=began - exchange.started),
        latency_ms=round((ended - began) * 1000),
        first_byte_ms=None if tried.answered is None else round((tried.answered - began) * 1000),
        outcome=tried.label,
        http_status=tried.status,
        kind=outcome.kind if outcome is not None else "",
        detail=outcome.detail if outcome is not None else "",
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_creation_input_tokens=usage.cache_creation_input_tokens,
        cache_read_input_tokens=usage.cache_read_input_tokens,
    )


def _error_type(exchange: Exchange, http_status: int | None) -> str | None:
    """As the provider named it, else the one that belongs to the status, else how the answer broke off."""
    if exchange.reader is not None and exchange.reader.error is not None:
        return exchange.reader.error[0]
    if http_status is not None and http_status >= 400:
        return error_type(http_status)
    return "stream_error" if exchange.ending == "error" else None


def _status(exchange: Exchange, http_status: int | None) -> Status:
    if exchange.ending == "cancelled":
        return "cancelled"
    reader = exchange.reader
    failed = reader is not None and (reader.error is not None or reader.broken)
    if exchange.ending == "error" or failed or http_status is None or http_status >= 300:
        return "error"
    return "success"
