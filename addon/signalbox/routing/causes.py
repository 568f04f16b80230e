"""Why an attempt failed: by the type or code that an error names, else its wording, else its status."""

import re
from collections.abc import Container, Mapping
from typing import Literal, NamedTuple

from signalbox.routing.report import Report

type Kind = Literal[
    "success", "auth", "quota", "throttle", "request", "overload", "server",
    "connect", "timeout", "stream_error", "local", "client",
]  # fmt: skip

LOGIN_STATUSES = (401, 402, 403)

MONTHLY = "enforced_spend_limit_reached"
"""Anthropic's, of an organization: spent until the first of next month."""
DAILY = "1304"
"""Z.ai's calls of one day."""
NOT_IN_PLAN = "1311"
"""Z.ai: the plan does not have this model, now and for the next request."""


_STATUSES: Mapping[int, Kind] = {
    401: "auth",
    402: "quota",
    403: "auth",
    408: "timeout",
    429: "throttle",
    503: "overload",
    504: "timeout",
    529: "overload",
}

_KINDS: Mapping[Kind, str] = {
    "quota": "insufficient_quota exceeded_current_quota_error budget_exceeded resource_exhausted"
    " payment_required insufficient_balance billing_error organization_on_hold"
    f" {MONTHLY} contract_spend_limit_reached 1113 {DAILY} 1308 1309 1310 minimax_1008 minimax_2056",
    "throttle": "1302 1303 1313 minimax_1002 minimax_1039",
    "overload": "overloaded_error engine_overloaded engine_overloaded_error provider_overloaded 1305 1312",
    "request": f"content_filter content_policy_violation 1300 1301 {NOT_IN_PLAN} minimax_1026 minimax_1027",
    "auth": "1000 1001 1002 1003 1004 1110 1111 1112 1121 minimax_1004 minimax_2049",
    "server": "1234",
    "timeout": "minimax_1001",
    "client": "1210 1211 1213 1214 1261 minimax_2013",
}
"""What types and codes mean, whatever the status. Four digits are Z.ai's business codes:
https://docs.z.ai/api-reference/api-code"""
_NAMES = {name: kind for kind, names in _KINDS.items() for name in names.split()}


class _Wording(NamedTuple):
    statuses: Container[int]
    kind: Kind
    text: re.Pattern[str]


def _wording(statuses: Container[int], kind: Kind, *texts: str) -> _Wording:
    return _Wording(statuses, kind, re.compile("|".join(texts), re.IGNORECASE))


_WORDINGS = (
    _wording(
        (400,),
        "quota",
        "^you have reached your specified api usage limits",
        "^your credit balance is too low",
        "^(?:you're|you are) out of (?:extra usage|usage credits)",
        "^(?:this|your) (?:organization|account) (?:has been|is|was) (?:currently |temporarily )?"
        "(?:disabled|suspended|on hold)",
    ),  # the account is at fault and not the request, though Anthropic says so with 400
    _wording((400,), "request", "^third-party apps now draw from your extra usage"),  # by what it holds
    _wording((403,), "request", "only available for coding agents"),  # asks for the client, not the key
    _wording(
        (429,),
        "request",
        "long context",
        "prompt is too long",
        "signature`? in `?thinking",  # resellers say with 429 what Anthropic says with 400
    ),
    _wording(
        (402, 403, 429, *range(500, 600)),
        "quota",
        "insufficient balance",
        "exceeded your current quota",
        "check your account balance",
        "please recharge",
        "account in arrears",
        "reached your usage limit",
        "usage limit reached",
    ),
    _wording((429, *range(500, 600)), "overload", "overloaded"),
    _wording(range(500, 600), "request", "^unexpected endpoint or method"),  # LM Studio, with a 200
)
"""For those who name no type of their own; only with statuses at which it cannot be the caller's text."""


def kind(status: int, report: Report) -> Kind:
    """The kind of an error. `status` is the one it came with or, after a 200, the one it names."""
    return _by_name(report) or _by_wording(status, report.message) or _by_status(status)


def _by_name(report: Report) -> Kind | None:
    return next((_NAMES[name] for name in report.names if name in _NAMES), None)


def _by_wording(status: int, message: str) -> Kind | None:
    said = (word for word in _WORDINGS if status in word.statuses and word.text.search(message))
    return next((word.kind for word in said), None)


def _by_status(status: int) -> Kind:
    return _STATUSES.get(status) or ("server" if status >= 500 else "client")
