"""Answers that the router gives itself, in the shape that Anthropic gives them."""

from collections.abc import Mapping

from mitmproxy import http
from mitmproxy.proxy.layers.http import RequestProtocolError, ResponseProtocolError
from mitmproxy.proxy.layers.http._events import ErrorCode

from signalbox.anthropic.errors import error_body, with_request_id
from signalbox.errors import is_exhausted, short_reason
from signalbox.exchange import Exchange
from signalbox.routing.local_pages import PageRefusal

_REFUSAL_HEADERS = {
    401: {"www-authenticate": 'Basic realm="Signalbox", charset="UTF-8"'},
    405: {"allow": "GET, HEAD"},
}
_PAGE_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def answer(status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> http.Response:
    fields = {"content-type": "application/json"} | dict(headers or {}) | {"content-length": str(len(body))}
    return http.Response.make(
        status, body, http.Headers([(k.encode(), v.encode()) for k, v in fields.items()])
    )


def error(
    status: int,
    message: str,
    exchange: Exchange | None = None,
    headers: Mapping[str, str] | None = None,
) -> http.Response:
    """An error with the `type` that belongs to its status (reference/anthropic-messages.md, section 8), with
    the id of the request that it answers, and with the headers that tell how that was routed."""
    body, fields = error_body(status, message), dict(headers or {})
    if exchange is not None:
        body = with_request_id(body, exchange.request_id)
        fields |= exchange.headers() | {"request-id": exchange.request_id}
    return answer(status, body, fields)


def page_response(status: int, body: bytes, content_type: str, headers: Mapping[str, str]) -> http.Response:
    """A page of the router's own. Nobody stores it, frames it, or learns from it where a reader goes next;
    what is not styled or scripted by itself may load nothing."""
    return answer(status, body, {"content-type": content_type} | _PAGE_HEADERS | dict(headers))


def page_refused(refused: PageRefusal) -> http.Response:
    """After a 401 browsers ask for a password."""
    body = f"{refused.why}\n".encode()
    return page_response(
        refused.status, body, "text/plain; charset=utf-8", _REFUSAL_HEADERS.get(refused.status, {})
    )


def too_large(exchange: Exchange) -> http.Response:
    limit = exchange.rules.body_limit
    return error(
        413, f"The request is larger than this router takes: limits.body is {limit} bytes.", exchange
    )


def protocol_failure(
    event: RequestProtocolError | ResponseProtocolError, flow: http.HTTPFlow, exchange: Exchange | None
) -> http.Response:
    """The answer to a request that is not routed, in place of mitmproxy's HTML page for this event."""
    status = event.code.http_status_code() or 502
    where = f"{flow.request.host}:{flow.request.port}"
    reason = short_reason(event.message)
    if event.code is ErrorCode.CONNECT_FAILED and is_exhausted(event.message):
        status, reason = 503, f"the router can open no more connections: {reason}"
    elif event.code is ErrorCode.CONNECT_FAILED:
        reason = f"the upstream could not be reached at {where}: {reason}"
    elif status == 502:
        reason = f"the upstream at {where} broke off before it answered: {reason}"
    return error(status, reason, exchange)


def stream_head(headers: Mapping[str, str], *, chunked: bool) -> http.Response:
    """The head of a stream that the router begins itself, because the client has waited long."""
    fields = {"content-type": "text/event-stream", "cache-control": "no-cache"} | dict(headers)
    if chunked:
        fields["transfer-encoding"] = "chunked"
    head = http.Response.make(200, b"", http.Headers([(k.encode(), v.encode()) for k, v in fields.items()]))
    head.headers.pop("content-length", None)  # which `make` gives it
    return head
