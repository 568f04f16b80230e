"""An answer comes: it passes as it arrives, with a reader beside it that tallies."""

import logging
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial

from mitmproxy import http

from signalbox.config.rules import Provider
from signalbox.messages.context import too_long
from signalbox.messages.errors import error_event, error_type
from signalbox.messages.reader import Reader
from signalbox.proxy.faults import place
from signalbox.proxy.heads import has_body
from signalbox.record import console
from signalbox.routing.exchange import Exchange
from signalbox.routing.mask import masked_value
from signalbox.routing.outcome import (
    EMPTY,
    STREAM_ERROR,
    UNFINISHED,
    Outcome,
    classify,
    classify_event,
    success,
)
from signalbox.routing.report import HEAD
from signalbox.routing.sessions import Sessions
from signalbox.upkeep.issued import Issued

log = logging.getLogger("signalbox")

NOT_PASSED = ("location", "set-cookie", "set-cookie2")
"""Headers of providers that are not Anthropic itself: a client would follow the first with its own
credentials, and give a cookie to whoever is asked next."""


def deliver(flow: http.HTTPFlow, exchange: Exchange, issued: Issued) -> None:
    """Set up the way of an upstream's answer to the client."""
    response, provider = flow.response, exchange.provider
    assert response is not None
    assert provider is not None
    status = response.status_code
    exchange.attempted(str(status) if exchange.outcome is None else exchange.outcome.label)
    outgoing = exchange.outgoing if status < 300 else None
    exchange.reader = reader = Reader(
        response.headers.get("content-type", ""),
        response.headers.get("content-encoding", ""),
        echo_model=outgoing.echo_model if outgoing else None,
        estimate=exchange.estimate if outgoing is not None and outgoing.estimates else None,
        reword=outgoing is not None and not provider.is_anthropic,
        decode=exchange.outgoing is not None and not exchange.outgoing.lone,
        key=issued.key,
    )
    if not provider.is_anthropic:
        for name in NOT_PASSED:
            response.headers.pop(name, None)
    if reader.decodes:
        response.headers.pop("content-encoding", None)
    if flow.request.http_version == "HTTP/1.0":  # it knows no chunks: mitmproxy ends the answer by closing
        response.headers.pop("transfer-encoding", None)
    if reader.changes and "content-length" in response.headers and has_body(response):
        del response.headers["content-length"]
        if flow.request.http_version == "HTTP/1.1":
            response.headers["transfer-encoding"] = "chunked"
    learn = partial(_learn, reader, provider.name, issued)
    response.stream = _passing(exchange, reader, learn, is_error=status >= 300)
    received(exchange, provider, status)


def _learn(reader: Reader, provider: str, issued: Issued) -> None:
    """Before the client has it: its next request may come before this answer is over, or after it was cut."""
    if reader.issued:
        issued.learn(reader.issued, provider)
        reader.issued.clear()


def _passing(
    exchange: Exchange, reader: Reader, learn: Callable[[], None], *, is_error: bool
) -> Callable[[bytes], Iterator[bytes]]:
    """mitmproxy's stream callable: bytes as they arrive, empty at the end. No fault may cost a byte.

    What is empty of what it gives is not sent: it lets others go first (see `RouterStream`).
    """
    told = begun = foreign = False

    def passing(data: bytes) -> Iterator[bytes]:
        nonlocal told, begun, foreign
        if exchange.first_byte is None:
            exchange.first_byte = time.monotonic()
        if is_error and len(exchange.error_body) < HEAD:
            exchange.error_body += data
        try:
            for piece in reader.pieces(data) if data else (reader.end(),):
                out = piece
                if reader.foreign and reader.events and reader.changes:
                    out, foreign = b"" if foreign else _foreign(exchange, reader), True
                learn()
                if exchange.course is not None and reader.began and not begun:
                    begun = True
                    exchange.course.began()
                    if exchange.answered is not None and reader.message_id:
                        exchange.answered(reader.message_id)
                yield out
        except Exception as fault:
            if not told:
                log.error("fault when an answer was read: %s", place(fault))
            told = True
            yield data

    return passing


def _foreign(exchange: Exchange, reader: Reader) -> bytes:
    """What the client of a stream is told instead of what it could not read."""
    assert exchange.provider is not None
    names = reader.error[:1] if reader.error is not None else ()
    if in_other_words := too_long(reader.foreign, *names):
        return error_event(error_type(400), in_other_words, exchange.request_id)
    said = f"{exchange.provider.name} gave no answer: {reader.foreign}"
    return error_event("api_error", said, exchange.request_id)


def judge(flow: http.HTTPFlow, exchange: Exchange) -> None:
    """Tell how the attempt that was delivered went; the circuit and the next requests go by that."""
    outcome, now = _outcome(flow, exchange), time.monotonic()
    if exchange.course is not None:
        if outcome is not None and outcome.kind == "stream_error":
            exchange.ending = "error"
        exchange.course.ended(outcome, now)
    exchange.over(outcome, now)
    if exchange.provider is not None and outcome is not None and outcome.kind != "success":
        log.debug("%s", console.failed_line(exchange.provider.shown, outcome.label, outcome.detail))


def _outcome(flow: http.HTTPFlow, exchange: Exchange) -> Outcome | None:
    """None where the client left."""
    response, reader, provider = flow.response, exchange.reader, exchange.provider
    if exchange.ending == "cancelled":
        return None
    if exchange.outcome is not None or reader is None or response is None or provider is None:
        return exchange.outcome
    now, host = datetime.now(UTC), provider.url.host
    if response.status_code >= 300:
        return classify(
            response.status_code,
            response.headers,
            exchange.told(bytes(exchange.error_body)),
            now=now,
            own_key=provider.auth != "client",
            provider=host,
        )
    if reader.error is not None:
        kind, said = map(exchange.told_text, reader.error)
        return classify_event(kind, said, now=now, provider=host)
    if exchange.ending == "error":
        return STREAM_ERROR
    if reader.broken:
        return STREAM_ERROR.because(reader.fault)
    if not reader.understood:
        return EMPTY
    return success(response.status_code) if reader.ended else UNFINISHED


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
