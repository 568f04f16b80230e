"""What is written down of one request."""

from datetime import timedelta
from http import HTTPStatus

from mitmproxy import http
from msgspec.structs import replace

from signalbox.config.rules import Provider, shown
from signalbox.gateway.delivery import milliseconds
from signalbox.messages.errors import error_type, read_error
from signalbox.messages.usage import Usage
from signalbox.record.entry import Attempt, Entry, Status, cost
from signalbox.routing.exchange import Exchange
from signalbox.routing.tried import Tried

SHOWN = 60
"""Characters of an error's message on the console."""


def entry(exchange: Exchange, response: http.Response | None) -> Entry:
    http_status = response.status_code if response is not None else None
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
        why=_why(exchange, response),
        snippet=facts.snippet if facts is not None and exchange.rules.log.prompts else "",
    )


def passed(exchange: Exchange, flow: http.HTTPFlow, provider: Provider | None) -> Entry:
    """One whose body was not read, because it was refused or only passed on to `provider`."""
    exchange.provider = provider
    made = entry(exchange, flow.response)
    path = flow.request.path.partition("?")[0]
    is_stranger = provider is None and made.http_status == HTTPStatus.UNAUTHORIZED
    return replace(
        made,
        passed=f"{flow.request.method} {path}",
        **{"why": "", "peer": flow.client_conn.peername[0]} if is_stranger else {},
    )


def _why(exchange: Exchange, response: http.Response | None) -> str:
    """What the last attempt, or else the router, says of an error; empty where nothing is known."""
    outcome = exchange.outcome
    if exchange.tried and exchange.tried[-1].outcome is not None:
        outcome = exchange.tried[-1].outcome
    if outcome is not None and outcome.status is None and exchange.provider is not None:
        where = (
            f"{shown(exchange.provider.name)} at {exchange.provider.url.host}:{exchange.provider.url.port}"
        )
        return f"{_within_a_line(outcome.detail)} ({where})" if outcome.detail else ""
    if outcome is not None:
        return "" if outcome.kind == "success" else _said(outcome.detail, exchange, response)
    if response is None or response.status_code < HTTPStatus.BAD_REQUEST:
        return ""
    report = read_error(response.get_content(strict=False) or b"")
    return _said(report.detail, exchange, response) if report.is_found else ""


def _within_a_line(sentence: str) -> str:
    """`Connection refused` as `connection refused`; `HTTP/1 protocol error` and other names stay."""
    first = sentence.partition(" ")[0]
    return sentence if not first[1:].islower() else f"{sentence[0].lower()}{sentence[1:]}"


def _said(detail: str, exchange: Exchange, response: http.Response | None) -> str:
    """`rate_limit_error: slow down`: the type, and SHOWN characters of the message."""
    kind = _error_type(exchange, response.status_code if response is not None else None) or ""
    message = detail.removeprefix(kind).removeprefix(": ") if detail.startswith(kind) else detail
    short = message if len(message) <= SHOWN else f"{message[:SHOWN]}…"
    return ": ".join(filter(None, (kind, short)))


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
