"""What happens to providers and attempts, told on the console."""

import logging

from mitmproxy import ctx, http

from signalbox.record import console
from signalbox.routing.exchange import Exchange
from signalbox.routing.standing import Event

log = logging.getLogger("signalbox")


def changed(event: Event) -> None:
    """A circuit opened or closed, something rests or is well again."""
    kind, provider, before, after = event
    if kind == "circuit":
        log.warning("circuit of %s: %s → %s", provider, before, after)
    elif kind == "resting":
        log.warning("%s: %s rests %s", provider, before, after)
    else:
        log.info("%s: %s is well again", provider, before)


def failed_over(flow: http.HTTPFlow, exchange: Exchange) -> None:
    """One attempt failed and another follows: a line, and a flow of its own where flows are looked at."""
    outcome, provider = exchange.outcome, exchange.provider
    if outcome is None or provider is None or exchange.course is None:
        return
    number = len(exchange.course.outcomes)
    following = exchange.course.current
    to = following.provider.name if following is not None else "-"
    log.warning("%s", console.failover_line(provider.name, outcome.label, outcome.detail, to))
    if (view := ctx.master.addons.get("view")) is not None:
        attempt = flow.copy()
        attempt.comment = f"attempt {number}: {provider.name} {outcome.label} {outcome.detail}".rstrip()
        attempt.marked = ":repeat:"
        attempt.live = False
        view.add([attempt])
