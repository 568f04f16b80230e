"""What is recorded of one request, and what the next ones learn of it."""

import logging
import math
import time
from datetime import timedelta
from functools import partial
from http import HTTPStatus

from mitmproxy import http
from msgspec.structs import replace

from signalbox.anthropic.errors import error_type, read_error
from signalbox.config.rules import CLAUDE_APIS, Provider, display_name
from signalbox.exchange import Exchange
from signalbox.inspect.masking import masked_text
from signalbox.record import console
from signalbox.record.entry import AttemptRow, Entry, Status
from signalbox.record.prefixes import Cacheable
from signalbox.record.prices import PriceTable
from signalbox.routing.attempts import Attempt
from signalbox.routing.sessions import Sessions

log = logging.getLogger("signalbox")

SHOWN = 60
"""Characters of an error's message on the console."""


def finish(exchange: Exchange) -> None:
    """Judge the attempt that was delivered: health and the next requests go by that."""
    outcome = None if exchange.ending == "cancelled" else exchange.outcome
    now = time.monotonic()
    if exchange.dispatch is not None:
        if outcome is not None and outcome.kind == "stream_error":
            exchange.break_off(outcome)
        exchange.dispatch.settle(outcome, now)
    exchange.finish_attempt(outcome, now)
    if exchange.provider is not None and outcome is not None and outcome.kind != "success":
        log.debug("%s", console.failed_line(exchange.provider.shown, outcome.label, outcome.detail))


def remember(exchange: Exchange, sessions: Sessions) -> None:
    """What the next request of this conversation should know of this answer.

    Of a long request an estimate is half of the router's work: none is made to learn from alone.
    """
    answer, facts, provider = exchange.answer, exchange.facts, exchange.provider
    if exchange.kind != "messages" or answer is None or facts is None or provider is None:
        return
    counts = provider.count_tokens_for(provider.api_for(exchange.model))
    wanted = facts.is_measured() or not provider.is_anthropic or counts == "estimate"
    if wanted and facts.conversation and answer.began and answer.error is None:
        sessions.record_usage(facts.conversation, exchange.model, facts.measured, answer.usage.total_input)


def entry(
    exchange: Exchange, response: http.Response | None, prices: PriceTable, account: str | None = None
) -> Entry:
    """`account` is the one that was used at the provider that answered."""
    http_status = response.status_code if response is not None else None
    facts, provider = exchange.facts, exchange.provider
    asked = (facts.asked if facts is not None else None) or ""
    attempts = [attempt for attempt in exchange.attempts if attempt.label]
    rows = tuple(attempt_row(exchange, attempt, prices) for attempt in attempts)
    pairs = list(zip(attempts, rows, strict=True))
    charged = [pair for pair in pairs if pair[1].tokens] or pairs
    first = exchange.first_byte
    return Entry(
        ts=exchange.ts,
        model=asked,
        backend=provider.shown if provider is not None else "",
        input_tokens=sum(row.input_tokens for row in rows),
        output_tokens=sum(row.output_tokens for row in rows),
        cache_creation_input_tokens=sum(row.cache_creation_input_tokens for row in rows),
        cache_read_input_tokens=sum(row.cache_read_input_tokens for row in rows),
        status=_status(exchange, http_status),
        upstream_model=exchange.model or "",
        rule=exchange.label,
        reason=exchange.reason,
        attempts=" ".join(exchange.attempt_labels),
        latency_ms=round((time.monotonic() - exchange.started) * 1000),
        first_byte_ms=None if first is None else round((first - exchange.started) * 1000),
        cost=_sum([row.cost for _, row in charged]),
        session=facts.session if facts is not None else None,
        client=exchange.caller.client,
        tier=facts.tier if facts is not None else None,
        http_status=http_status,
        error_type=_error_type(exchange, http_status),
        agent=facts.agent if facts is not None else None,
        stream=facts.stream if facts is not None else None,
        request_id=exchange.request_id,
        list_cost=_sum([prices.list_cost(asked, attempt.usage, row.started) for attempt, row in charged]),
        request_class=facts.request_class if facts is not None else None,
        project=facts.project if facts is not None else None,
        account=account,
        agent_id=facts.agent_id if facts is not None else None,
        attempt_rows=rows,
        why=_why(exchange, response),
        snippet=masked_text(facts.snippet, exchange)
        if facts is not None and exchange.rules.log.prompts
        else "",
    )


def cacheable(exchange: Exchange, prices: PriceTable) -> Cacheable | None:
    """What the request asked the provider that answered to cache; None where it belongs to no session."""
    facts, provider, key, outgoing = (
        exchange.facts,
        exchange.provider,
        exchange.provenance_key,
        exchange.outgoing,
    )
    if facts is None or facts.body is None or facts.session is None or provider is None or key is None:
        return None
    return Cacheable(
        key,
        asked=facts.body.readable,
        sent=outgoing.body if outgoing is not None else None,
        protocol="messages" if provider.api_for(exchange.model) in CLAUDE_APIS else "other",
        price=partial(prices.cost, provider, exchange.model or "", at=exchange.ts),
    )


def _sum(costs: list[float | None]) -> float | None:
    """None where there is nothing to add up, or a part of it is not known."""
    known = [cost for cost in costs if cost is not None]
    return round(math.fsum(known), 6) if known and len(known) == len(costs) else None


def passed(exchange: Exchange, flow: http.HTTPFlow, provider: Provider | None, prices: PriceTable) -> Entry:
    """One whose body was not read, because it was refused or only passed on to `provider`."""
    exchange.provider = provider
    made = entry(exchange, flow.response, prices)
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
    if exchange.attempts and exchange.attempts[-1].outcome is not None:
        outcome = exchange.attempts[-1].outcome
    if outcome is not None and outcome.status is None and exchange.provider is not None:
        url = exchange.provider.url
        where = f"{display_name(exchange.provider.name)} at {url.host}:{url.port}"
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


def attempt_row(exchange: Exchange, attempt: Attempt, prices: PriceTable) -> AttemptRow:
    started, ended = attempt.started, attempt.ended or attempt.started
    usage, outcome, head_at = attempt.usage, attempt.outcome, attempt.head_at
    model = attempt.model or ""
    at = exchange.ts + timedelta(seconds=started - exchange.started)
    return AttemptRow(
        provider=attempt.provider.name,
        model=model,
        key=None if attempt.key_index is None else attempt.key_index + 1,
        started=at,
        latency_ms=round((ended - started) * 1000),
        first_byte_ms=None if head_at is None else round((head_at - started) * 1000),
        outcome=attempt.label,
        http_status=attempt.status,
        kind=outcome.kind if outcome is not None else "",
        detail=attempt.detail,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_creation_input_tokens=usage.cache_creation_input_tokens,
        cache_read_input_tokens=usage.cache_read_input_tokens,
        cost=prices.cost(attempt.provider, model, usage, at) if exchange.kind != "count_tokens" else None,
        cache_miss_reason=attempt.cache_miss_reason or None,
    )


def _error_type(exchange: Exchange, http_status: int | None) -> str | None:
    """As the provider named it, else the one that belongs to the status, else how the answer broke off."""
    if exchange.answer is not None and exchange.answer.error is not None:
        return exchange.answer.error[0]
    if http_status is not None and http_status >= 400:
        return error_type(http_status)
    return "stream_error" if exchange.ending == "error" else None


def _status(exchange: Exchange, http_status: int | None) -> Status:
    if exchange.ending == "cancelled":
        return "cancelled"
    answer = exchange.answer
    failed = answer is not None and (answer.error is not None or answer.broken)
    if exchange.ending == "error" or failed or http_status is None or http_status >= 300:
        return "error"
    return "success"
