"""The meanings of providers' errors: one table of names, one of wordings, one of statuses.

For errors in Anthropic's format, which the client gets unchanged, and for translated errors, whose status
also comes from here (`openai.errors`). Sources: providers.md, openai-chat.md, 5, and the recorded cases in
`tests/golden/outcomes`.
"""

import re
from collections.abc import Container, Mapping
from typing import Literal, NamedTuple

from signalbox.anthropic.errors import ErrorReport

type ErrorKind = Literal[
    "success", "auth", "quota", "throttle", "request", "overload", "server",
    "connect", "timeout", "stream_error", "local", "client",
]  # fmt: skip

MONTHLY = "enforced_spend_limit_reached"
"""Anthropic: the organization's spend limit is reached until the first of next month."""
DAILY = "1304"
"""Z.ai: the limit of calls per day is reached."""
NOT_IN_PLAN = "1311"
"""Z.ai: the plan does not include this model."""
POLICIES = frozenset({"bio_policy", "cyber_policy", "misalignment_policy_violation"})
"""OpenAI: what the request says is refused, whichever provider is asked (openai-responses.md, 6)."""


class Meaning(NamedTuple):
    kind: ErrorKind
    status: int
    """The status that Anthropic's API would send."""


_NAMES: tuple[tuple[ErrorKind, int, str], ...] = (
    ("quota", 402, "insufficient_quota exceeded_current_quota_error payment_required budget_exceeded"),
    ("quota", 402, "quota_exceeded insufficient_balance 1113 1309 minimax_1008"),
    ("quota", 402, f"billing_error organization_on_hold contract_spend_limit_reached {MONTHLY}"),
    ("quota", 429, f"resource_exhausted usage_limit_reached {DAILY} 1308 1310 minimax_2056"),
    ("throttle", 429, "1302 1303 1313 minimax_1002 minimax_1039"),
    ("overload", 529, "server_is_overloaded"),
    (
        "overload",
        529,
        "overloaded_error engine_overloaded engine_overloaded_error provider_overloaded 1305 1312 slow_down",
    ),
    (
        "request",
        400,
        f"content_filter content_policy_violation 1300 1301 {NOT_IN_PLAN} minimax_1026 minimax_1027",
    ),
    ("request", 400, "failed_precondition usage_not_included model_not_supported unsupported_api_for_model"),
    ("auth", 401, "1000 1001 1002 1003 1004 1110 1111 1112 1121 minimax_1004 minimax_2049"),
    ("client", 400, "1210 1213 1214 1261 minimax_2013"),
    ("client", 404, "1211"),
    ("client", 400, " ".join(POLICIES)),
    ("client", 400, "invalid_image invalid_image_format invalid_base64_image invalid_image_url"),
    ("client", 400, "image_too_large image_too_small image_parse_error invalid_image_mode"),
    ("client", 400, "image_content_policy_violation image_file_too_large unsupported_image_media_type"),
    ("client", 400, "empty_image_file failed_to_download_image image_file_not_found"),
    ("server", 500, "1234"),
    ("timeout", 504, "minimax_1001"),
)
"""Types and codes, in lower case, whose meaning does not depend on the status. Four digits are Z.ai's codes:
https://docs.z.ai/api-reference/api-code. The last ones are of the Responses API (openai-responses.md, 6):
what a request says or shows."""

_GENERAL_NAMES: Mapping[int, str] = {
    400: "invalid_request_error invalid_request invalid_prompt invalid_argument"
    " precondition_failed unprocessable context_length_exceeded max_tokens_exceeded token_limit_exceeded"
    " string_too_long refusal string_above_max_length unsupported_parameter unsupported_value"
    " unknown_parameter invalid_encrypted_content",
    401: "authentication_error authentication unauthenticated invalid_api_key",
    403: "permission_error permission_denied access_terminated_error",
    404: "not_found_error not_found model_not_found deploymentnotfound",
    409: "conflict_error",
    413: "request_too_large payload_too_large",
    429: "rate_limit_error rate_limit_exceeded rate_limit_reached_error too_many_requests",
    500: "api_error server internal",
    503: "unavailable provider_unavailable",
    504: "timeout_error timeout deadline_exceeded",
}
"""Types and codes that stand for a status, for errors that came with a 200."""

_MEANINGS = {name: Meaning(kind, status) for kind, status, names in _NAMES for name in names.split()}
_STATUS_OF = {name: status for status, names in _GENERAL_NAMES.items() for name in names.split()}

_KIND_OF: Mapping[int, ErrorKind] = {
    401: "auth",
    402: "quota",
    403: "auth",
    408: "timeout",
    429: "throttle",
    503: "overload",
    504: "timeout",
    529: "overload",
}


class _Wording(NamedTuple):
    statuses: Container[int]
    """Statuses at which the text cannot be quoted from the request."""
    kind: ErrorKind
    status: int | None
    """None: the error's own status."""
    text: re.Pattern[str]


def _wording(statuses: Container[int], kind: ErrorKind, status: int | None, *texts: str) -> _Wording:
    return _Wording(statuses, kind, status, re.compile("|".join(texts), re.IGNORECASE))


_THROTTLED = re.compile(
    r"aiplatform\.googleapis\.com/\w*_per_minute|/vertex-ai/\S*error-code-429", re.IGNORECASE
)
"""Vertex AI's words for a limit per minute, which has the name of a quota that is used up (clouds.md, 2)."""

_WORDINGS = (
    _wording(
        (400,),
        "quota",
        None,
        "^you have reached your specified api usage limits",
        "^your credit balance is too low",
        "^(?:you're|you are) out of (?:extra usage|usage credits)",
        "^(?:this|your) (?:organization|account) (?:has been|is|was) (?:currently |temporarily )?"
        "(?:disabled|suspended|on hold)",
    ),  # Anthropic sends 400, though the account is at fault and not the request
    _wording((400,), "request", None, "^third-party apps now draw from your extra usage"),
    _wording((403,), "request", None, "only available for coding agents"),  # the user agent, not the key
    _wording(
        (429,),
        "request",
        400,
        "long context",
        "prompt is too long",
        "signature`? in `?thinking",  # resellers send 429 where Anthropic sends 400
    ),
    _wording(
        (402, 403, 429, *range(500, 600)),
        "quota",
        402,
        "insufficient balance",
        "exceeded your current quota",
        "check your account balance",
        "please recharge",
        "account in arrears",
    ),
    _wording(
        (402, 403, 429, *range(500, 600)), "quota", None, "reached your usage limit", "usage limit reached"
    ),
    _wording((429, *range(500, 600)), "overload", 529, "overloaded"),
    _wording(range(500, 600), "request", None, "^unexpected endpoint or method"),  # LM Studio, with a 200
)
"""Wordings of errors without a known name."""

_SEARCHED = 4000
"""Characters of a message."""


def meaning(report: ErrorReport, status: int | None) -> Meaning:
    """The meaning of an error that came with `status`; None if it came with a 200."""
    named = next((_MEANINGS[name] for name in report.names if name in _MEANINGS), None)
    if named is not None and named.kind == "quota" and is_per_minute(report):
        return Meaning("throttle", 429)
    if named is not None:
        return named
    status = status or _named_status(report) or 500
    for wording in _WORDINGS:
        if status in wording.statuses and wording.text.search(report.message[:_SEARCHED]):
            return Meaning(wording.kind, wording.status or status)
    return Meaning(_KIND_OF.get(status) or ("server" if status >= 500 else "client"), status)


def is_per_minute(report: ErrorReport) -> bool:
    """Whether an error is about Vertex AI's limit per minute."""
    return _THROTTLED.search(report.message[:_SEARCHED]) is not None


def _named_status(report: ErrorReport) -> int | None:
    """A status among the error's codes, else the one for its most specific name."""
    digits = (int(name) for name in report.names if re.fullmatch(r"[45]\d\d", name, re.ASCII))
    return next(digits, None) or next(
        (_STATUS_OF[name] for name in reversed(report.names) if name in _STATUS_OF), None
    )
