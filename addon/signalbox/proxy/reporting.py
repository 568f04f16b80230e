"""What the log, and mitmweb, show of a request on its way: where it goes, what came back, what failed."""

import logging
import time
from typing import TYPE_CHECKING

from mitmproxy import http
from mitmproxy.flow import Error

from signalbox.anthropic.api import COUNT_TOKENS, MESSAGES
from signalbox.config.rules import Provider, Reject
from signalbox.exchange import Exchange
from signalbox.inspect.annotations import annotate_failed
from signalbox.proxy.recording import attempt_row
from signalbox.record import console
from signalbox.routing.attempts import Attempt
from signalbox.routing.outcome import Outcome

if TYPE_CHECKING:
    from signalbox.app import App

log = logging.getLogger("signalbox")


def log_dispatch(exchange: Exchange, *, is_first: bool) -> None:
    """The line `dispatch:`, and at `debug` what was changed (the contract, section 8)."""
    level = logging.DEBUG if is_first else logging.INFO
    provider, outgoing = exchange.provider, exchange.outgoing
    if provider is None or not log.isEnabledFor(level):
        return
    asked = exchange.facts.asked if exchange.facts is not None else None
    rewrite = outgoing.model if outgoing is not None and outgoing.model != asked else None
    log.log(level, "%s", console.dispatch_line(provider.shown, exchange.reason, asked or "-", rewrite))
    log_sent(exchange, exchange.attempts[-1])


def log_sent(exchange: Exchange, attempt: Attempt) -> None:
    """At `debug`: what goes where, and what was changed in it."""
    provider, outgoing = attempt.provider, attempt.outgoing
    if outgoing is not None and outgoing.is_renamed:
        log.debug("%s", console.remap_line(outgoing.asked or "-", outgoing.model or "-"))
    for note in outgoing.notes if outgoing is not None else ():
        log.debug("%s", note)
    where = MESSAGES if exchange.kind == "messages" else COUNT_TOKENS
    if outgoing is not None and not outgoing.translator.is_identity:
        where = outgoing.shown_path
    log.debug("%s", console.sent_line(provider.shown, "POST", where, exchange.shown_key(provider)))


def log_received(exchange: Exchange, provider: Provider, status: int) -> None:
    """At `debug`: that an answer came."""
    took = round((time.monotonic() - exchange.started) * 1000)
    log.debug("%s", console.received_line(provider.shown, status, took, exchange.shown_key(provider)))


def report_failover(
    app: "App", flow: http.HTTPFlow, exchange: Exchange, outcome: Outcome, following: Attempt | Reject
) -> None:
    """Log that the last attempt failed and what follows it. Where flows are shown or saved it becomes one of
    its own: a copy of `flow`, which holds its request and what came of its answer."""
    attempt = exchange.attempts[-1]
    name = attempt.provider.shown
    to = following.provider.shown if isinstance(following, Attempt) else "reject"
    if flow.response is not None:
        log_received(exchange, attempt.provider, flow.response.status_code)
    log.warning("%s", console.failover_line(name, outcome.label, outcome.detail, to))
    if isinstance(following, Attempt):
        log_sent(exchange, following)
    if not app.retention.holds_attempts:
        return
    failed, now = flow.copy(), time.time()
    annotate_failed(failed, exchange, attempt, attempt_row(exchange, attempt, app.prices), to)
    failed.live = False
    failed.request.timestamp_start = now - ((attempt.ended or attempt.started) - attempt.started)
    failed.request.timestamp_end = failed.request.timestamp_start
    if failed.response is None:
        failed.error = Error(outcome.detail or outcome.label)
    else:
        failed.response.timestamp_end = now
    app.retention.add_failed(flow, failed)
