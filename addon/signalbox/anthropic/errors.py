"""Writes errors in Anthropic's format, and reads errors in the formats of all providers.

`routing.provider_errors` knows what the names and wordings of an error mean for routing.
"""

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from html import unescape
from typing import Any

import msgspec

from .json_edit import Body, whole_characters
from .redaction import one_line

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
    """An error in Anthropic's format. The default `type` is that of the status."""
    error = {"type": type or error_type(status), "message": message}
    return msgspec.json.encode({"type": "error", "error": error})


def with_request_id(error: bytes, id: str) -> bytes:
    """The error body with a `request_id` (reference/anthropic-messages.md, section 8)."""
    return Body.parse(error).edited({"request_id": msgspec.json.encode(id)})


def refused_key(provider: str, error: bytes) -> bytes:
    """The body of the 403 that replaces a 401 for a key of the rules: on a 401 Claude Code renews the user's
    own login, or asks for it."""
    return error_body(403, f"{provider}: {_found_message(error) or 'the key was refused'}")


def error_event(type: str, message: str, request_id: str) -> bytes:
    """An error inside a stream (reference/anthropic-messages.md, section 6)."""
    error = {"type": "error", "error": {"type": type, "message": message}, "request_id": request_id}
    return b"event: error\ndata: " + msgspec.json.encode(error) + b"\n\n"


def is_anthropics(error: bytes) -> bool:
    """Whether an error body is in Anthropic's format."""
    value = _decoded(error[:HEAD].decode("utf-8", "replace"))
    return isinstance(value, dict) and value.get("type") == "error" and isinstance(value.get("error"), dict)


def in_anthropics_shape(status: int, error: bytes) -> bytes:
    """The error body in Anthropic's format, with the type of this status where it names none of Anthropic's.
    One that is in the format stays as it is."""
    if is_anthropics(error):
        return error
    report = read_error(error)
    type = report.type if report.type in ERROR_TYPES.values() else None
    return error_body(status, report.message or "The provider sent an empty error.", type)


# reading

HEAD = 64 * 1024
"""Bytes of an error's body that are read."""
_LONGEST = 4000
"""Characters of a text of any length that are searched or shown."""
_LONGEST_PLAIN = 300
"""Characters of a text that is not JSON."""
_DEEPEST = 5
_LATEST = 1e11
"""Unix seconds that are still a date; more are believed of no duration either."""
_NESTED = 100
_MOST = 10
"""Entries of a list of validation errors, and parts of a field's path, that are shown."""

_NAMES = ("type", "status", "code", "error_code", "error_type")
_TEXTS = ("message", "msg", "detail", "error_message", "error_msg", "errorMessage", "errorMsg", "title")
_ERROR_TEXTS = ("error_message", "error_msg", "errorMessage", "errorMsg")
"""The names in `_TEXTS` that only errors have."""
_CODES = ("code", "error_code", "errorCode", "statusCode", "status_code")
_SUCCESS_CODES = ("", "0", "200", "ok", "success")
_KEYS = ("error", "errors", "base_resp", "object", "type", "status", "success", "choices", *_TEXTS, *_CODES)
_MESSAGES = ("message", "msg", "detail", "error", "reason")
"""Fields in which an object inside an error may hold its text."""

_MINIMAX_CODE = re.compile(r"\(([12]\d{3})\)\s*\Z", re.ASCII)
_TITLE = re.compile(r"<title[^<>]*>([^<]*)", re.IGNORECASE)
_TAG = re.compile(r"<(?:style|script).*?</(?:style|script)>|<[^>]*>", re.IGNORECASE | re.DOTALL)
_TOKEN = re.compile(r'"(?:[^"\\]|\\.?)*+(?:"|\Z)|[{}\[\],]', re.DOTALL)


class ErrorReport(msgspec.Struct, frozen=True):
    """The parts of an error body."""

    types: tuple[str, ...] = ()
    """Types and codes as written, the most general first: `rate_limit_error`, `1308`."""
    raw_message: object = ""
    """The message as sent: a text, or a list or an object of validation errors."""
    retry_delay: str = ""
    """Google's `RetryInfo`, as `37s`."""
    resets_at: float | None = None
    """When the quota resets that is used up, in unix seconds (Codex)."""
    resets_in: float | None = None
    """The seconds until then."""
    param: str = ""
    """The field that OpenAI blames."""
    is_found: bool = True
    """False where the body holds no error object: `raw_message` is then the text of the body."""
    is_error: bool = True
    """Whether the body alone shows an error, whatever status it came with."""

    @property
    def type(self) -> str:
        return next(iter(self.types), "")

    @property
    def type_and_message(self) -> tuple[str, str] | None:
        """None where the body holds no error object."""
        return (self.type, self.message) if self.is_found else None

    @property
    def names(self) -> tuple[str, ...]:
        """The types in lower case; MiniMax's codes are `minimax_1008`."""
        raw = self.raw_message
        code = _MINIMAX_CODE.search(raw[-_LONGEST:]) if isinstance(raw, str) else None
        return (*(name.lower() for name in self.types), *([f"minimax_{code[1]}"] if code else []))

    @property
    def is_zai(self) -> bool:
        """Whether it has one of Z.ai's codes, also when it came through a gateway."""
        return any(re.fullmatch(r"1[0-3]\d\d", name, re.ASCII) for name in self.types)

    @property
    def message(self) -> str:
        """The message for the client."""
        if isinstance(self.raw_message, str):
            return whole_characters(self.raw_message)
        return _text(self.raw_message) or (_as_json(self.raw_message) if self.is_found else "")

    @property
    def text(self) -> str:
        """The whole message, to be searched for field names. Validation errors are JSON. Quotes are
        unescaped, since gateways put the error of another provider into their own as escaped JSON."""
        text = self.raw_message if isinstance(self.raw_message, str) else _as_json(self.raw_message)
        return re.sub(r"\\+(['\"])", r"\1", text)

    @property
    def detail(self) -> str:
        """Type and message for the log, without quotes from the request, which may be parts of a prompt."""
        message = self.raw_message
        if (
            isinstance(message, str)
            and message[:1] in ("[", "{")
            and (value := _decoded(message)) is not None
        ):
            message = value
        return one_line(": ".join(filter(None, (*self.types[:1], _text(message)))))


def read_error(body: bytes) -> ErrorReport:
    """Reads an error body: Anthropic's format, OpenAI's, Google's arrays, Z.ai's and MiniMax's codes, flat
    objects (openai-chat.md, 5), a bare text, an HTML page (its title), or an empty body. Never raises."""
    text = body[:HEAD].decode("utf-8", "replace")
    value = _decoded(text)
    if isinstance(value, list):
        value = next(iter(value), None)
    if isinstance(value, dict):
        return _report(value, error_of(value))
    return ErrorReport(raw_message=_plain(text), is_found=False, is_error=False)


def error_in(body: Body, *, of_any_status: bool = True) -> ErrorReport | None:
    """The error in a parsed object, without decoding the rest of the object; None if there is none. Without
    `of_any_status` the object counts only if it is clearly an error whatever its status."""
    value = {name: body.get(name, Any) for name in _KEYS if name in body}
    error = error_of(value)
    if error is None or not (of_any_status or shows_error(value)):
        return None
    is_nested = bool(value.get("error") or value.get("errors"))
    return _report(value, error) if is_nested or isinstance(error["message"], str) else None


def error_of(value: Mapping[str, Any]) -> dict[str, Any] | None:
    """The error that an object holds, with its text as `message` and its code as `code`; None if it holds
    none.

    Known formats are `{"error": {"type", "message"}}` (Anthropic, OpenAI, Gemini with `status`), `{"error":
    "text"}`, `{"errors": [...]}`, OpenRouter's `error` in a choice, Codex's `{"detail": {"code"}}`, MiniMax's
    `base_resp`, and flat `{"message"}`, `{"detail"}`, `{"code", "msg"}`, `{"error_message"}` (openai-chat.md,
    5).
    """
    base = value.get("base_resp")
    if isinstance(base, dict) and base.get("status_code"):
        return {"code": f"minimax_{base['status_code']}", "message": base.get("status_msg")}
    detail = value.get("detail")
    inner = detail if isinstance(detail, dict) and _code(detail) is not None else None
    for nested in (value.get("error"), value.get("errors"), _error_of_choice(value), inner):
        first = next(iter(nested), None) if isinstance(nested, list) else nested
        if isinstance(first, str) and first:
            return {"code": _code(value), "message": first}
        if isinstance(first, dict) and first:
            message = _message(first) or first.get("message") or first.get("error")
            return {**first, "code": _code(first), "message": message}
    text = _message(value)
    return {**value, "code": _code(value), "message": text} if text else None


def shows_error(value: Mapping[str, Any]) -> bool:
    """Whether an object that came with a status of success is an error nevertheless."""
    base = value.get("base_resp")
    if value.get("error") or value.get("errors") or "error" in (value.get("object"), value.get("type")):
        return True
    if (isinstance(base, dict) and base.get("status_code")) or any(map(value.get, _ERROR_TEXTS)):
        return True
    if _error_of_choice(value):
        return True
    if value.get("choices") or not _message(value):
        return False
    is_bad = (_code(value) is not None and not _is_success(value)) or value.get("success") is False
    return is_bad or ("choices" not in value and "detail" in value)


def has_error_text(value: Mapping[str, Any]) -> bool:
    """Whether an object has a message as errors have it, and no code of success."""
    return bool(_message(value)) and not _is_success(value)


def _error_of_choice(value: Mapping[str, Any]) -> object:
    choices = value.get("choices")
    if not isinstance(choices, list):
        return None
    return next((one["error"] for one in choices if isinstance(one, dict) and one.get("error")), None)


def _is_success(value: Mapping[str, Any]) -> bool:
    code = _code(value)
    return code is not None and str(code or "").lower() in _SUCCESS_CODES


def _message(value: Mapping[str, Any]) -> object:
    """A text, or a list of validation errors."""
    texts = (value.get(name) for name in _TEXTS)
    return next((one for one in texts if one and isinstance(one, str | list)), None)


def _code(value: Mapping[str, Any]) -> object:
    return next((value[name] for name in _CODES if value.get(name) is not None), None)


def _report(value: Mapping[str, Any], error: Mapping[str, Any] | None) -> ErrorReport:
    source = value if error is None else error
    param = source.get("param")
    return ErrorReport(
        tuple(_types(source)),
        value if error is None else "" if error["message"] is None else error["message"],
        _retry_delay(source.get("details")),
        _seconds(source.get("resets_at")),
        _seconds(source.get("resets_in_seconds")),
        param if isinstance(param, str) else "",
        error is not None,
        shows_error(value),
    )


def _types(source: Mapping[str, Any]) -> Iterator[str]:
    for part in (source, source.get("details"), source.get("metadata")):
        if isinstance(part, Mapping):
            named = (_text(part.get(name)) for name in _NAMES)
            yield from (name for name in named if name not in ("", "error"))


def _retry_delay(details: object) -> str:
    """The delay in `details`, one of which may be a `RetryInfo`: https://cloud.google.com/apis/design/errors"""
    rows = details if isinstance(details, list) else []
    delays = (row.get("retryDelay") for row in rows if isinstance(row, dict))
    return next((delay for delay in delays if isinstance(delay, str)), "")


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 < value < _LATEST else None


def _decoded(text: str) -> object:
    """The JSON value, or the readable part of one that was cut short; None where it is not JSON. Accepts NaN,
    control characters and halves of surrogate pairs too."""
    for whole in (text, _closed(text)):
        with suppress(msgspec.MsgspecError, ValueError, RecursionError):
            return msgspec.json.decode(whole)
        with suppress(ValueError, RecursionError):
            return json.loads(whole, strict=False)
    return None


def _closed(text: str) -> str:
    """JSON that was cut short, up to its last whole member, with its brackets closed."""
    closing, ends = "", (0, "")
    for found in _TOKEN.finditer(text):
        if len(closing) > _NESTED:
            break
        match found[0][0]:
            case "{":
                closing = "}" + closing
            case "[":
                closing = "]" + closing
            case ",":
                ends = found.start(), closing
            case "}" | "]":
                closing = closing[1:]
                ends = found.end(), closing
    return text[: ends[0]] + ends[1]


def _text(value: object, depth: int = 0) -> str:
    """The text of a value: of objects, such as FastAPI's validation errors, only messages and field paths."""
    if value is None or depth > _DEEPEST:
        return ""
    if isinstance(value, list):
        return "; ".join(filter(None, (_text(one, depth + 1) for one in value[:_MOST])))[:_LONGEST]
    if isinstance(value, dict):
        text = next(filter(None, (_text(value.get(name), depth + 1) for name in _MESSAGES)), "")
        place = value.get("loc")
        where = ".".join(map(str, place[:_MOST])) if text and isinstance(place, list) else ""
        return f"{text} (at {where})" if where else text
    return whole_characters(str(value)[:_LONGEST])


def _as_json(value: object) -> str:
    return whole_characters(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def _plain(text: str) -> str:
    """The title of a page, else its text without tags."""
    head = text[: 2 * _LONGEST]
    title = _TITLE.search(head)
    return " ".join(unescape(title[1] if title else _TAG.sub(" ", head)).split())[:_LONGEST_PLAIN]


def _found_message(error: bytes) -> str:
    report = read_error(error)
    return report.message if report.is_found else ""


# a prompt that is too long

_TOO_LONG_STATUSES = (200, 400, 413, 422, 429, 500)
"""200 for an error in a body, or in an event of a stream, that came with this status."""
_TOO_LONG_TYPES = frozenset(
    {"1261", "context_length_exceeded", "model_context_window_exceeded", "exceed_context_size_error"}
)
"""1261 is Z.ai's, the last llama.cpp's."""
_TOO_LONG = re.compile(
    r"prompt is too long"
    r"|context_length_exceeded|ContextWindowExceeded"
    r"|(?:reached|exceed\w*)\W+(?:\w+\W+){0,4}context (?:window|length|size)"
    r"|(?:context (?:window|length|size)|token limit)\W+(?:is\W+)?exceed"
    r"|(?:maximum|longer than the model's) context length"
    r"|exceed\w* (?:the )?(?:\w+ )?(?:token limit|max(?:imum)? (?:number of )?tokens|maximum allowed length)"
    r"|(?:prompt|input) token count\b.{0,60}\bexceeds"
    r"|too many tokens in the (?:prompt|input|context)",
    re.IGNORECASE,
)
"""In order: Anthropic, OpenAI and LiteLLM; Z.ai, MiniMax and llama.cpp; servers like OpenAI's; Kimi and
SGLang; Gemini."""
_OTHERWISE = re.compile(
    r"`?max_(?:completion_)?(?:output_)?tokens\b.{0,40}(?::|exceed|too large)"
    r"|input length and `?max_tokens`? exceed"
    r"|per[ -](?:minute|min|hour|day|second)\b|\bTPM\b|\bTPD\b|\brate limit",
    re.IGNORECASE,
)
"""Other limits: the answer is too long (Claude Code then asks for a shorter one), or a rate limit on
tokens."""

_NUMBER = r"(?<![\w@./-])(\d[\d,]*\d)(?![\w@/-]|\.\d)"
"""A number that is not part of a model's name, such as its date or version."""
_SAID = re.compile(r"prompt is too long[:.\s]*", re.IGNORECASE)
_ANY_NUMBER = re.compile(_NUMBER)
_PAIR = re.compile(rf"{_NUMBER} tokens > {_NUMBER}")
_MAXIMUM = re.compile(
    rf"(?:maximum|limit|context (?:length|window|size)|>).{{0,60}}?{_NUMBER}", re.IGNORECASE
)

_MAXIMUM_ALONE = re.compile(
    rf"\b(?:maximum|limit)\b(?:\s+(?!exceed)\w+){{0,4}}?(?:\s+(?:is|of)|\s*[:=])\s*{_NUMBER}", re.IGNORECASE
)
"""A maximum, in words that mean no count of tokens even where no other number is there."""


def as_prompt_too_long(status: int, error: bytes, estimate: Callable[[], int] | None = None) -> bytes | None:
    """The body of a 400 with the message "prompt is too long", if an error says so in another provider's
    words, or without the numbers; else None. `error` is a decoded body, or the data of an error event, and
    `estimate` gives the tokens of the request.

    Claude Code compacts the conversation on this wording only:
    https://docs.claude.com/en/docs/claude-code/errors
    """
    report = read_error(error)
    if status not in _TOO_LONG_STATUSES or not report.is_found:
        return None
    message = report.message
    is_anthropics = status == 400 and report.type == "invalid_request_error"
    if is_anthropics and _SAID.match(message) and _PAIR.search(message):
        return None
    text = prompt_too_long(message, report.names, estimate)
    return error_body(400, text) if text and not (is_anthropics and text == message) else None


def prompt_too_long(message: str, names: Collection[str], estimate: Callable[[], int] | None = None) -> str:
    """The message "prompt is too long: ..." if an error with this message and these types and codes means
    that, else empty.

    It ends with `A tokens > B maximum` where the provider tells the maximum; A is its own count, else that of
    `estimate`. Without a maximum its words stay, with the estimate where they have no number: Claude Code
    compacts on them as well, but of numbers it takes A - B for all that has to go.
    """
    message = message[:_LONGEST]
    is_meant = _TOO_LONG.search(message) or not _TOO_LONG_TYPES.isdisjoint(map(str.lower, names))
    if not is_meant or _OTHERWISE.search(message):
        return ""
    told = _sizes(message, estimate)
    if not told:
        told = " ".join(_SAID.sub("", message).split())[:_LONGEST_PLAIN]
        if estimate is not None and not _ANY_NUMBER.search(message) and (asked := estimate()):
            told = f"{told} (about {asked} tokens)".lstrip()
    return f"prompt is too long: {told}" if told else "prompt is too long"


def _sizes(message: str, estimate: Callable[[], int] | None) -> str:
    """`A tokens > B maximum`, where both are known."""
    if pair := _PAIR.search(message):
        asked, limit = map(_number, pair.groups())
    else:
        limit = next((_number(found[1]) for found in _MAXIMUM.finditer(message)), 0)
        asked = max(map(_number, _ANY_NUMBER.findall(message)), default=0)
        if asked == limit and estimate is not None and _MAXIMUM_ALONE.search(message):
            asked = estimate()
    return f"{asked} tokens > {limit} maximum" if asked > limit > 0 else ""


def _number(written: str) -> int:
    return int(written.replace(",", ""))
