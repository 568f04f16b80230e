"""Errors of providers of chat completions, as Anthropic would say them (translation.md, 9).

Their shapes are those of openai-chat.md, 5; GLM's codes: https://docs.z.ai/api-reference/api-code
"""

import re
from collections.abc import Mapping
from html import unescape
from typing import NamedTuple

import msgspec

from signalbox.messages.context import too_long
from signalbox.messages.errors import error_of, error_type
from signalbox.translate.chunks import read, tells_error
from signalbox.translate.halves import joined
from signalbox.translate.shapes import as_list, as_object, as_objects

_LONGEST = 300
"""Characters of a text that is no JSON."""
_HEAD = 8 * 1024
_WHOLE = 1024 * 1024
"""Bytes that are read of a text, and of JSON."""
_TITLE = re.compile(r"<title[^<>]*>([^<]*)", re.IGNORECASE)
_TAG = re.compile(r"<(?:style|script).*?</(?:style|script)>|<[^>]*>", re.IGNORECASE | re.DOTALL)

_STATUSES: Mapping[int, int] = {
    408: 504,
    422: 400,
    503: 529,
    524: 504,
    **dict.fromkeys((520, 521, 522, 523, 525, 526), 502),
}
"""What Anthropic would say instead; the others stay as they are."""

_REFUSED_KEY = 403
"""For 401: Claude Code would renew or ask for the user's own login, which is not at fault."""

_NAMES: Mapping[int, str] = {
    400: "context_length_exceeded max_tokens_exceeded token_limit_exceeded string_too_long invalid_request"
    " invalid_request_error invalid_prompt precondition_failed unprocessable content_policy_violation refusal"
    " content_filter invalid_argument failed_precondition 1210 1211 1213 1214 1261 1300 1301 minimax_1026"
    " minimax_1027 minimax_2013",
    402: "insufficient_quota exceeded_current_quota_error payment_required insufficient_balance 1113"
    " minimax_1008",
    403: "authentication permission_denied invalid_api_key authentication_error unauthenticated"
    " access_terminated_error 1000 1001 1002 1003 1004 1110 1111 1112 1121 minimax_1004 minimax_2049",
    404: "not_found model_not_found not_found_error deploymentnotfound",
    413: "payload_too_large",
    429: "rate_limit_exceeded rate_limit_reached_error rate_limit_error resource_exhausted 1302 1303 1304"
    " 1308 1309 1310 1313 minimax_1002 minimax_1039 minimax_2056",
    500: "server internal",
    504: "timeout timeout_error deadline_exceeded minimax_1001",
    529: "provider_overloaded provider_unavailable engine_overloaded engine_overloaded_error overloaded_error"
    " unavailable 1305 1312",
}
_STATUS_OF = {name: status for status, names in _NAMES.items() for name in names.split()}
_MEANS_MORE = frozenset({402, 529})
"""What a name tells better than any status: money that is spent with a 429 or 403, overload with a 429."""
_SPENT = re.compile(r"insufficient balance|exceeded your current quota", re.IGNORECASE)


_MODELS = frozenset({"model_not_found", "deploymentnotfound"})
"""Names that blame the model; all else with a 404 may be that of a server that knows no such path."""
_ELSEWHERE = "or the provider's url or path is wrong"


class Failure(NamedTuple):
    status: int
    type: str
    message: str


class _Said(NamedTuple):
    names: tuple[str, ...]
    """Types and codes, the most telling first, in lower case."""
    status: int | None
    """That the body itself names."""
    message: str


def failure(status: int, body: bytes, provider: str, model: str) -> Failure:
    """`body` is decoded and of any shape; a `status` below 300 is none, since the error came within an
    answer. Never raises."""
    said = _said(body)
    if in_other_words := too_long(said.message, *said.names):
        return Failure(400, error_type(400), in_other_words)
    told = _status(status, said)
    message = f"{provider}: {said.message or _speechless(status, body)}"
    if told == 404 and model not in message:
        is_model = not _MODELS.isdisjoint(said.names)
        message += f" (model: {model})" if is_model else f" (no model {model}, {_ELSEWHERE})"
    return Failure(told, error_type(told), message)


def _speechless(status: int, body: bytes) -> str:
    """What is told of an answer that says nothing of itself."""
    if 300 <= status < 400:
        return "a redirect, which is not followed; look at the provider's url"
    if status < 300 and not tells_error(read(body) or {}):
        return "the answer is no chat completion; look at the provider's url and api"
    return "an error without a message"


def _status(status: int, said: _Said) -> int:
    named = next((_STATUS_OF[name] for name in said.names if name in _STATUS_OF), None)
    if _SPENT.search(said.message):
        named = 402
    if named not in _MEANS_MORE and status >= 300:
        named = status
    told = named or said.status or 500
    if told < 400:  # a redirect, which nobody follows
        return 502
    return _REFUSED_KEY if told == 401 else _STATUSES.get(told, told)


def _said(body: bytes) -> _Said:
    value = read(body[:_WHOLE])
    if value is None:
        return _Said((), None, "" if body.lstrip().startswith(b"{") else _text_of(body[:_HEAD]))
    first = next(iter(as_objects(value.get("choices"))), {})
    found = error_of(first if first.get("error") else value)
    error = found or value
    kind = as_object(error.get("metadata")).get("error_type")
    told = (kind, error.get("code"), error.get("status"), error.get("type"))
    names = tuple(str(name).lower() for name in told)
    status = next((int(name) for name in names if re.fullmatch(r"[45]\d\d", name, re.ASCII)), None)
    return _Said(names, status, "" if found is None else _string(found["message"]))


def _string(value: object) -> str:
    """FastAPI tells faults as `[{type, loc, msg}]`."""
    if isinstance(value, str):
        return joined(value)
    if isinstance(value, list) and value and all(isinstance(one, dict) and "msg" in one for one in value):
        return "; ".join(
            f"{_string(one['msg'])} (at {'.'.join(map(str, as_list(one.get('loc'))))})" for one in value
        )
    return "" if value is None else msgspec.json.encode(value).decode()


def _text_of(page: bytes) -> str:
    """Of what is no JSON: the title of a page, else its text."""
    text = page.decode(errors="replace")
    found = _TITLE.search(text)
    return " ".join(unescape(found[1] if found else _TAG.sub(" ", text)).split())[:_LONGEST]
