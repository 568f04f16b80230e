"""What happens to providers and attempts, told on the console."""

import logging
import time

from mitmproxy import ctx, http
from mitmproxy.flow import Error

from signalbox.config.rules import Provider
from signalbox.gateway.delivery import received, shown_key
from signalbox.messages.paths import COUNT_TOKENS, MESSAGES
from signalbox.record import console
from signalbox.routing.exchange import Exchange
from signalbox.routing.health import HealthEvent
from signalbox.routing.outgoing import Outgoing

log = logging.getLogger("signalbox")


def changed(event: HealthEvent, *, counts: bool = False) -> None:
    """A circuit opened or closed, a cooldown has begun or something has recovered; with `counts` for
    count_tokens alone."""
    kind, provider, before, after = event
    provider += " (count_tokens)" if counts else ""
    if kind == "circuit":
        log.warning("circuit of %s: %s → %s", provider, before, after)
    elif kind == "cooldown":
        log.warning("%s: %s in cooldown %s", provider, before, after)
    else:
        log.info("%s: %s recovered", provider, before)


def sent(exchange: Exchange, provider: Provider, outgoing: Outgoing | None) -> None:
    """At `debug`: what goes where, and what was changed in it."""
    for note in outgoing.notes if outgoing is not None else ():
        log.debug("%s", note)
    where = MESSAGES if exchange.kind == "messages" else COUNT_TOKENS
    if outgoing is not None and not outgoing.translation.passes:
        where = outgoing.shown_path
    log.debug("%s", console.sent_line(provider.shown, "POST", where, shown_key(exchange, provider)))


def failed_over(flow: http.HTTPFlow, exchange: Exchange) -> None:
    """One attempt failed and another follows: a line, and a flow of its own where flows are looked at."""
    outcome, provider = exchange.outcome, exchange.provider
    if outcome is None or provider is None or exchange.course is None:
        return
    number = len(exchange.tried)
    following = exchange.course.current
    to = following.provider.shown if following is not None else "reject"
    if flow.response is not None:
        received(exchange, provider, flow.response.status_code)
    log.warning("%s", console.failover_line(provider.shown, outcome.label, outcome.detail, to))
    if following is not None:
        sent(exchange, following.provider, following.outgoing)
    if (view := ctx.master.addons.get("view")) is not None:
        attempt = flow.copy()
        attempt.comment = f"attempt {number}: {provider.shown} {outcome.label} {outcome.detail}".rstrip()
        attempt.marked = ":repeat:"
        attempt.live = False
        now, tried = time.time(), exchange.tried[-1]
        attempt.request.timestamp_start = now - ((tried.ended or tried.began) - tried.began)
        attempt.request.timestamp_end = attempt.request.timestamp_start
        if attempt.response is None:
            attempt.error = Error(outcome.detail or outcome.label)
        else:
            attempt.response.timestamp_end = now
        view.add([attempt])
