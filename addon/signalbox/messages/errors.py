"""Errors: Anthropic's shape, and what the errors of others say."""

import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

import msgspec

from .body import Body, BodyError, elements

ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""The `error.type` of each status: https://docs.claude.com/en/api/errors"""


def error_type(status: int) -> str:
    return ERROR_TYPES.get(status, "invalid_request_error" if 400 <= status < 500 else "api_error")


def error_body(status: int, message: str, type: str | None = None) -> bytes:
    """An error as Anthropic writes it; the type is the status's own unless given."""
    error = {"type": type or error_type(status), "message": message}
    return msgspec.json.encode({"type": "error", "error": error})


def with_request_id(error: bytes, id: str) -> bytes:
    """An error body that tells the id of its request (reference/anthropic-messages.md, section 8)."""
    return Body.parse(error).edited({"request_id": msgspec.json.encode(id)})


def error_event(type: str, message: str, request_id: str) -> bytes:
    """An error inside a stream (reference/anthropic-messages.md, section 6)."""
    error = {"type": "error", "error": {"type": type, "message": message}, "request_id": request_id}
    return b"event: error\ndata: " + msgspec.json.encode(error) + b"\n\n"


def without_secrets(said: bytes, secrets: Iterable[str]) -> bytes:
    """What a provider said, with `***` for each of these, also as JSON and URLs may write it."""
    for secret in sorted(secrets, key=len, reverse=True):
        quoted = json.dumps(secret)[1:-1]
        in_url = quote(secret, safe="", errors="surrogateescape")
        for written in (secret, quoted, quoted.replace("/", "\\/"), in_url):
            said = said.replace(written.encode(errors="surrogateescape"), b"***")
    return said


def read_error(body: bytes) -> tuple[str, str] | None:
    """Type (empty where none is named) and message of an error body; None where it is not one.

    Understood are `{"error": {"type", "message"}}` (Anthropic, OpenAI; Gemini in an array and with
    `status`; a bare `code`), `{"error": "text"}`, and flat `{"message"}` or `{"detail"}`. Never raises.
    """
    try:
        return error_in(Body.parse(_first(body)))
    except BodyError:
        return None


def _first(body: bytes) -> bytes:
    if not body.lstrip().startswith(b"["):
        return body
    return next((body[place.value : place.end] for place in elements(body)), b"")


def error_in(body: Body) -> tuple[str, str] | None:
    """The same of an object that is parsed already."""
    if error := body.get("error", dict[str, Any]):
        return _named(error), _text(error.get("message"))
    named = _named({name: body.get(name, str) for name in ("type", "code")})
    for name in ("error", "message", "detail"):
        if text := body.get(name, str):
            return "" if named == "error" else named, text
    return None


def _named(error: dict[str, Any]) -> str:
    return next((_text(error[name]) for name in ("type", "status", "code") if error.get(name)), "")


def _text(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
