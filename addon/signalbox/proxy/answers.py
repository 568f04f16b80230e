"""Answers that the router gives itself, in the shape that Anthropic gives them."""

from collections.abc import Mapping

from mitmproxy import http

from signalbox.messages.errors import error_body


def answer(status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> http.Response:
    fields = {"content-type": "application/json"} | dict(headers or {}) | {"content-length": str(len(body))}
    return http.Response.make(
        status, body, http.Headers([(k.encode(), v.encode()) for k, v in fields.items()])
    )


def error(status: int, message: str, headers: Mapping[str, str] | None = None) -> http.Response:
    """An error with the `type` that belongs to its status (reference/anthropic-messages.md, section 8)."""
    return answer(status, error_body(status, message), headers)


def too_large(limit: int) -> http.Response:
    return error(413, f"The request is larger than this router takes: limits.body is {limit} bytes.")
