"""Errors: Anthropic's shape, and what the errors of others say."""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

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


def refused_key(provider: str, said: bytes) -> bytes:
    """The body of the 403 to tell instead of a provider's 401 for the router's own key: on a 401 Claude Code
    takes the user's login for refused, and renews or asks for it."""
    _, message = read_error(said) or ("", "")
    return error_body(403, f"{provider}: {message or 'the key was refused'}")


def error_event(type: str, message: str, request_id: str) -> bytes:
    """An error inside a stream (reference/anthropic-messages.md, section 6)."""
    error = {"type": "error", "error": {"type": type, "message": message}, "request_id": request_id}
    return b"event: error\ndata: " + msgspec.json.encode(error) + b"\n\n"


def without_secrets(said: bytes, secrets: Iterable[str]) -> bytes:
    """What a provider said, with `***` for each of these, whatever characters of them are escaped: as JSON,
    URLs or HTML do it, also one within another."""
    for secret in sorted(secrets, key=len, reverse=True):
        said = said.replace(secret.encode(errors="surrogateescape"), b"***")
        if any(mark in said for mark in (b"\\", b"%", b"&#")):
            said = _any_spelling(secret).sub(b"***", said)
    return said


@lru_cache(64)
def _any_spelling(secret: str) -> re.Pattern[bytes]:
    return re.compile("".join(map(_spellings, secret)).encode(errors="surrogateescape"), re.IGNORECASE)


def _spellings(char: str) -> str:
    """A pattern for a character, itself or escaped; IGNORECASE is for hexadecimal digits alone."""
    code, in_url = ord(char), char.encode(errors="surrogateescape").hex()
    itself = f"(?-i:{re.escape(char)})"
    return "|".join(
        (
            rf"(?:\\{{0,8}}{itself}" if char in "/\"'\\" else f"(?:{itself}",
            rf"\\{{1,8}}u{code:04x}",
            "".join(f"%(?:25){{0,4}}{in_url[i : i + 2]}" for i in range(0, len(in_url), 2)),
            f"&#(?:0{{0,4}}{code}|x0{{0,4}}{code:x});)",
        )
    )


_TEXTS = ("message", "msg", "detail", "error_message", "error_msg", "errorMessage", "errorMsg", "title")
_ERROR_TEXTS = ("error_message", "error_msg", "errorMessage", "errorMsg")
"""Those of them that only errors have."""
_CODES = ("code", "error_code", "errorCode", "statusCode", "status_code")
_FINE = ("", "0", "200", "ok", "success")
"""Codes that tell of no error."""
_KEYS = ("error", "errors", "base_resp", "object", "type", "status", "success", "choices", *_TEXTS, *_CODES)


def error_of(value: Mapping[str, Any]) -> dict[str, Any] | None:
    """The error that an object holds, with its text as `message` and its code as `code`; None where it holds
    none.

    Understood are `{"error": {"type", "message"}}` (Anthropic, OpenAI, Gemini with `status`), `{"error":
    "text"}`, `{"errors": [...]}`, MiniMax's `base_resp`, and flat `{"message"}`, `{"detail"}`, `{"code",
    "msg"}`, `{"error_message"}` (openai-chat.md, 5).
    """
    base = value.get("base_resp")
    if isinstance(base, dict) and base.get("status_code"):
        return {"code": f"minimax_{base['status_code']}", "message": base.get("status_msg")}
    for nested in (value.get("error"), value.get("errors")):
        first = next(iter(nested), None) if isinstance(nested, list) else nested
        if isinstance(first, str) and first:
            return {"code": _code(value), "message": first}
        if isinstance(first, dict) and first:
            return {
                **first,
                "code": _code(first),
                "message": _said(first) or first.get("message") or first.get("error"),
            }
    text = _said(value)
    return {**value, "code": _code(value), "message": text} if text else None


def shows_error(value: Mapping[str, Any]) -> bool:
    """Whether an object that came with a good status is an error all the same."""
    base = value.get("base_resp")
    if value.get("error") or value.get("errors") or "error" in (value.get("object"), value.get("type")):
        return True
    if (isinstance(base, dict) and base.get("status_code")) or any(map(value.get, _ERROR_TEXTS)):
        return True
    if value.get("choices") or not _said(value):
        return False
    is_bad = (_code(value) is not None and not _is_fine(value)) or value.get("success") is False
    return is_bad or ("choices" not in value and "detail" in value)


def says_more(value: Mapping[str, Any]) -> bool:
    """Whether an object has a text as errors have it, and no code that tells of success."""
    return bool(_said(value)) and not _is_fine(value)


def _is_fine(value: Mapping[str, Any]) -> bool:
    code = _code(value)
    return code is not None and str(code or "").lower() in _FINE


def _said(value: Mapping[str, Any]) -> object:
    """A text, or a list of faults."""
    told = (value.get(name) for name in _TEXTS)
    return next((one for one in told if one and isinstance(one, str | list)), None)


def _code(value: Mapping[str, Any]) -> object:
    return next((value[name] for name in _CODES if value.get(name) is not None), None)


def read_error(body: bytes) -> tuple[str, str] | None:
    """Type (empty where none is named) and message of an error body, in the shapes of `error_of`; None where
    it is not one. Never raises."""
    try:
        return error_in(Body.parse(_first(body)))
    except BodyError:
        return None


def _first(body: bytes) -> bytes:
    if not body.lstrip().startswith(b"["):
        return body
    return next((body[place.value : place.end] for place in elements(body)), b"")


def error_in(body: Body, *, of_any_status: bool = True) -> tuple[str, str] | None:
    """The same of an object that is parsed already. Without `of_any_status` it must show that it is one."""
    told = {name: body.get(name, Any) for name in _KEYS if name in body}
    error = error_of(told)
    if error is None or not (of_any_status or shows_error(told)):
        return None
    is_nested = bool(told.get("error") or told.get("errors"))
    return (
        (_named(error), _text(error["message"])) if is_nested or isinstance(error["message"], str) else None
    )


def _named(error: Mapping[str, Any]) -> str:
    names = (_text(error[name]) for name in ("type", "status", "code") if error.get(name))
    return next((name for name in names if name != "error"), "")


def _text(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
