"""Heads of upstream answers: whether one begins an answer at all, and as the client gets it."""

from mitmproxy import http
from mitmproxy.net.http.http1.read import expected_http_body_size, get_header_tokens

from signalbox.proxy.headers import copied

FINAL = range(200, 1000)
"""Statuses of an answer. Below 200 only a 101 may stand for one, and only where the client asked for it
(RFC 9110, sections 15 and 15.2.2); those above 599 are known to be used and tell their class themselves."""
_BODILESS = (204, 304)


def fault(status: int, request: http.Request, *, may_switch: bool) -> str:
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


def has_body(response: http.Response) -> bool:
    """Whether an answer to a POST with this status may have one."""
    return response.status_code not in _BODILESS


def _ends_with_connection(request: http.Request, response: http.Response) -> bool:
    if {"transfer-encoding", "content-length"} & {name.lower() for name in response.headers}:
        return False
    return expected_http_body_size(request, response) == -1


def _asks_to_switch(request: http.Request) -> bool:
    tokens = {token.lower() for token in get_header_tokens(request.headers, "connection")}
    return "upgrade" in request.headers and "upgrade" in tokens
