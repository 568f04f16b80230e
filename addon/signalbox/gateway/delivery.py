"""An answer comes: it passes as it arrives, with a reader beside it that tallies."""

import logging
import time

from mitmproxy import http

from signalbox.config.rules import Provider
from signalbox.record import console
from signalbox.routing.credentials import masked_value
from signalbox.routing.exchange import Exchange
from signalbox.routing.sessions import Sessions

log = logging.getLogger("signalbox")

NOT_PASSED = ("location", "set-cookie", "set-cookie2")
"""Headers of providers that are not Anthropic itself: a client would follow the first with its own
credentials, and give a cookie to whoever is asked next."""


def deliver(flow: http.HTTPFlow, exchange: Exchange) -> None:
    """An upstream's answer is about to go to the client."""
    response, provider = flow.response, exchange.provider
    assert response is not None
    assert provider is not None
    status = response.status_code
    exchange.attempted(str(status) if exchange.outcome is None else exchange.outcome.label)
    if not provider.is_anthropic:
        for name in NOT_PASSED:
            response.headers.pop(name, None)
    received(exchange, provider, status)


def judge(flow: http.HTTPFlow, exchange: Exchange) -> None:
    """Tell how the attempt that was delivered went; the circuit and the next requests go by that."""
    outcome = None if exchange.ending == "cancelled" else exchange.outcome
    now = time.monotonic()
    if exchange.course is not None:
        if outcome is not None and outcome.kind == "stream_error":
            exchange.ending = "error"
        exchange.course.ended(outcome, now)
    exchange.over(outcome, now)
    if exchange.provider is not None and outcome is not None and outcome.kind != "success":
        log.debug("%s", console.failed_line(exchange.provider.shown, outcome.label, outcome.detail))


def remember(exchange: Exchange, sessions: Sessions) -> None:
    """What the next request of this conversation should know of this answer.

    Of a long request an estimate is half of the router's work: none is made to learn from alone.
    """
    reader, facts, provider = exchange.reader, exchange.facts, exchange.provider
    if exchange.kind != "messages" or reader is None or facts is None or provider is None:
        return
    wanted = facts.is_measured() or not provider.is_anthropic or provider.count_tokens == "estimate"
    if wanted and facts.conversation and reader.began and reader.error is None:
        sessions.answered(facts.conversation, exchange.model, facts.measured, reader.usage.total_input)


def received(exchange: Exchange, provider: Provider, status: int) -> None:
    """At `debug`: that an answer came."""
    took, key = milliseconds(exchange), shown_key(exchange, provider)
    log.debug("%s", console.received_line(provider.shown, status, took, key))


def shown_key(exchange: Exchange, provider: Provider) -> str | None:
    """The caller's own credential, masked, where that is what the provider gets."""
    key = exchange.callers_key(provider)
    return None if key is None else masked_value(key)


def milliseconds(exchange: Exchange) -> int:
    return round((time.monotonic() - exchange.started) * 1000)
