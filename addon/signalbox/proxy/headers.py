"""Heads of requests and answers: masked in the flow, with the real credentials on the wire, framed."""

from collections.abc import Collection, Iterable
from typing import NamedTuple

from mitmproxy import http
from mitmproxy.master import Master
from mitmproxy.net.http.http1.read import expected_http_body_size, get_header_tokens
from mitmproxy.net.http.validate import validate_headers

from signalbox.anthropic.issued import MARK
from signalbox.anthropic.redaction import without_secrets
from signalbox.exchange import Exchange
from signalbox.proxy.fields import QuickHeaders
from signalbox.routing.credentials import encoded, is_secret, masked_path, masked_secret, masked_value
from signalbox.routing.outgoing import Outgoing

LARGE = 4 * 1024 * 1024
"""Bytes of a body beyond which work on it runs in a thread. Up to there it takes some 10 ms, and others wait
about as long for a thread."""
SIZEABLE = 64 * 1024
"""Bytes of a body beyond which it is looked into in a turn of the event loop of its own."""

SET_COOKIE = "set-cookie"

FINAL = range(200, 1000)
"""Statuses of an answer. Below 200 only a 101 may stand for one, and only where the client asked for it
(RFC 9110, sections 15 and 15.2.2); those above 599 are known to be used and tell their class themselves."""
_BODILESS = (204, 304)


type HiddenHeaders = dict[str, tuple[list[str], list[str]]]
"""Header to the values that are shown, and the real ones."""


class HiddenHead(NamedTuple):
    """What the head of an answer shows masked, for `with_hidden`."""

    headers: HiddenHeaders
    reason: tuple[bytes, bytes] | None = None
    """The reason phrase that is shown, and the real one; None where they are the same."""


class LeakError(Exception):
    """A secret was about to be sent to a provider that it does not belong to."""


def is_large(request: http.Request) -> bool:
    """Whether work on the body of this request keeps others waiting. A compressed one may be of any size."""
    return len(request.raw_content or b"") > LARGE or "content-encoding" in request.headers


def is_sizeable(request: http.Request) -> bool:
    """Whether many such requests at once keep others waiting."""
    return len(request.raw_content or b"") > SIZEABLE


def may_hold_thinking(request: http.Request) -> bool:
    """Whether the body has thinking blocks in it. A compressed one may."""
    return MARK in (request.raw_content or b"") or "content-encoding" in request.headers


def takes_long(request: http.Request, exchange: Exchange) -> bool:
    """Whether routing this request keeps others waiting: so do regular expressions, whatever the body."""
    return exchange.rules.searches_text or is_large(request)


def address(flow: http.HTTPFlow, exchange: Exchange, outgoing: Outgoing) -> None:
    request, url = flow.request, outgoing.provider.url
    headers = to_headers(outgoing.headers)
    request.scheme, request.port, request.host = url.scheme, url.port, url.host
    if request.authority:
        request.authority = url.authority
    request.path = outgoing.path
    request.headers = headers
    request.raw_content = outgoing.body
    request.trailers = None
    hide(flow, exchange)


def show(master: Master, flow: http.HTTPFlow) -> None:
    """Have mitmweb look at the flow again, which it does by itself only after a hook."""
    if (view := master.addons.get("view")) is not None:
        view.update([flow])


def hide(flow: http.HTTPFlow, exchange: Exchange) -> None:
    """Put masked credentials in the flow; the exchange keeps the real ones for the moment of sending."""
    request, masks = flow.request, exchange.rules.inspect.secrets == "mask"
    shown = masked_path(request.path) if masks else request.path
    exchange.mask(request.path, shown, mask_headers(request.headers) if masks else {})
    request.path = shown


def mask_headers(headers: http.Headers) -> HiddenHeaders:
    """Mask what is secret; gives for each such header what is shown now, and what was there."""
    hidden = {}
    for name in {name.lower() for name, value in headers.items(multi=True) if is_secret(name, value)}:
        secrets = headers.get_all(name)
        shown = [masked_value(secret) for secret in secrets]
        hidden[name] = shown, secrets
        headers.set_all(name, shown)
    return hidden


def mask_repeated(response: http.Response, exchange: Exchange) -> None:
    """Mask a key of the router's that its provider repeats in the head of its answer."""
    if exchange.outgoing is None or exchange.outgoing.provider.auth == "client":
        return
    headers, secrets = response.headers, exchange.secrets
    fields = [(name, without_secrets(value, secrets)) for name, value in headers.fields]
    if fields != list(headers.fields):
        headers.fields = tuple(fields)
    response.data.reason = without_secrets(response.data.reason, secrets)


def hide_in_head(response: http.Response, secrets: Collection[str]) -> HiddenHead:
    """Mask the values of `Set-Cookie`, and these credentials wherever the head repeats them, where the answer
    is shown; gives what `with_hidden` puts back."""
    hidden = {}
    for name in {name.lower() for name in response.headers} if secrets else (SET_COOKIE,):
        values = response.headers.get_all(name)
        shown = [_masked_cookie(one) if name == SET_COOKIE else _without(one, secrets) for one in values]
        if shown != values:
            hidden[name] = shown, values
            response.headers.set_all(name, shown)
    said = response.data.reason
    response.data.reason = without_secrets(said, secrets)
    return HiddenHead(hidden, None if response.data.reason == said else (response.data.reason, said))


def _without(value: str, secrets: Collection[str]) -> str:
    said = value.encode(errors="surrogateescape")
    return without_secrets(said, secrets).decode(errors="surrogateescape")


def with_hidden(response: http.Response, hidden: HiddenHead) -> http.Response:
    """The head as the client gets it: `response`, or a copy with the values that it shows masked."""
    headers, reason = hidden
    put_back = [name for name, (shown, _) in headers.items() if response.headers.get_all(name) == shown]
    is_other = reason is not None and response.data.reason == reason[0]
    if not (put_back or is_other):
        return response
    real = copied(response)
    for name in put_back:
        real.headers.set_all(name, headers[name][1])
    if reason is not None and is_other:
        real.data.reason = reason[1]
    return real


def _masked_cookie(cookie: str) -> str:
    """`session=abcde...vwxyz; Path=/`."""
    pair, separator, attributes = cookie.partition(";")
    name, equals, value = pair.partition("=")
    return (
        f"{name}{equals}{masked_secret(value.strip())}{separator}{attributes}"
        if equals
        else masked_secret(cookie)
    )


def copied[M: http.Message](message: M) -> M:
    """With headers of its own. mitmproxy's way to copy checks the type of every field anew."""
    other, data = message.__new__(type(message)), message.data.__new__(type(message.data))
    vars(data).update(vars(message.data), headers=QuickHeaders.of(message.headers.fields))
    vars(other).update(vars(message), data=data)
    return other


def with_secrets(request: http.Request, exchange: Exchange | None) -> http.Request:
    """A copy that holds the real credentials; the flow keeps the masked ones (mitmproxy.md, 17). Raises
    LeakError."""
    if exchange is None:
        return request
    real = copied(request)
    for name, (shown, secrets) in exchange.hidden.items():
        if real.headers.get_all(name) == shown:
            real.headers.set_all(name, secrets)
    if real.path == exchange.shown_path:
        real.path = exchange.path
    hidden_body = exchange.hidden_body
    if hidden_body is not None and real.data.content == hidden_body.shown:
        real.data.content = hidden_body.sent
        if hidden_body.encoding:
            real.headers["content-encoding"] = hidden_body.encoding
    if leak := exchange.leak(real.path, list(real.headers.items(multi=True))):
        name = exchange.provider.shown if exchange.provider else "the provider"
        raise LeakError(f"{leak} holds an Anthropic credential that is not {name}'s own")
    return real


def to_headers(headers: Iterable[tuple[str, str]]) -> http.Headers:
    return QuickHeaders.of(encoded(headers))


def plain_headers(message: http.Message) -> dict[str, str]:
    """For those who look at many: mitmproxy's own go through all of them for each."""
    return dict(message.headers.items(multi=True))


# heads of answers


def not_an_answer(status: int, request: http.Request, *, may_switch: bool) -> str:
    """Why this status is none of an answer, as in `zai answered with status 99`; empty where it is one.

    `may_switch`: another protocol may follow where the client asked for one.
    """
    if status in FINAL or (status == 101 and may_switch and _asks_to_switch(request)):
        return ""
    return f"answered with status {status}"


def handed_on(response: http.Response, request: http.Request) -> http.Response:
    """A copy of the head in the client's version of HTTP, whose framing the client can read.

    The version is each connection's own (RFC 9110, section 2.5). What ends with the upstream's connection
    becomes chunked for a client of HTTP/1.1: it can tell the end from a cut, and its connection stays. What
    has no body has no framing either (RFC 9112, section 6.3).
    """
    head = copied(response)
    if head.http_version == "HTTP/1.0":
        head.http_version = "HTTP/1.1"
    if head.status_code in _BODILESS:
        head.headers.pop("transfer-encoding", None)
    elif request.http_version == "HTTP/1.1" and head.is_http11 and _ends_with_connection(request, head):
        head.headers["transfer-encoding"] = "chunked"
    return head


def invalid_head(response: http.Response) -> str:
    """Why mitmproxy would refuse this head, because it is ambiguous; empty if it would not."""
    if isinstance(response.headers, QuickHeaders) and response.headers.is_sound:
        return ""
    try:
        validate_headers(response)
    except ValueError as error:
        return str(error)
    return ""


def has_body(response: http.Response) -> bool:
    """Whether an answer to a POST with this status may have one."""
    return response.status_code not in _BODILESS


def _ends_with_connection(request: http.Request, response: http.Response) -> bool:
    if "transfer-encoding" in response.headers or "content-length" in response.headers:
        return False
    return expected_http_body_size(request, response) == -1


def _asks_to_switch(request: http.Request) -> bool:
    tokens = {token.lower() for token in get_header_tokens(request.headers, "connection")}
    return "upgrade" in request.headers and "upgrade" in tokens
