"""Translates errors of other protocols into Anthropic's format (translation.md, 9)."""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from signalbox.anthropic.errors import ErrorReport, error_type, prompt_too_long, read_error
from signalbox.routing.provider_errors import meaning

_STATUSES: Mapping[int, int] = {
    401: 403,
    408: 504,
    422: 400,
    503: 529,
    524: 504,
    **dict.fromkeys((520, 521, 522, 523, 525, 526), 502),
}
"""The status that Anthropic's API would send instead; others stay. A 401 becomes 403, because on a 401 Claude
Code renews the user's own login or asks for it, although that login is not at fault."""

_MODELS = frozenset({"model_not_found", "deploymentnotfound"})
"""Error names that blame the model. Any other 404 may mean that the path is wrong."""


_WORDS = re.compile(r"[a-z]+(?:_[a-z]+)*", re.IGNORECASE)
"""A code that says something to people, as numbers do not."""


class AnthropicError(NamedTuple):
    status: int
    type: str
    message: str


EMPTY_ANSWER = b'{"error":{"type":"overloaded_error","message":"the answer is empty"}}'
"""What the client gets for an answer without text, call or thinking. Most providers that send one are
overloaded (translation.md, 8)."""


def anthropic_error(
    status: int,
    body: bytes,
    provider: str,
    model: str,
    *,
    expected: str = "chat completion",
    estimate: Callable[[], int] | None = None,
) -> AnthropicError:
    """The error that the client gets. `body` is decoded, in any format. A `status` below 300 means that the
    error came inside an answer, which should have been `expected`. `estimate` gives the tokens of the
    request, for a prompt that is too long. Never raises."""
    report = read_error(body)
    message = report.message
    if too_long := prompt_too_long(message, report.names, estimate):
        return AnthropicError(400, error_type(400), too_long)
    shown = _status(status, report)
    message = f"{provider}: {message or _without_message(status, report, expected)}"
    if shown == 404 and model not in message:
        is_model = not _MODELS.isdisjoint(report.names)
        wrong_path = f" (no model {model}, or the provider's url or path is wrong)"
        message += f" (model: {model})" if is_model else wrong_path
    return AnthropicError(shown, error_type(shown), message)


def _status(status: int, report: ErrorReport) -> int:
    meant = meaning(report, status if status >= 300 else None).status
    if meant < 400:  # a redirect, which is not followed
        return 502
    return _STATUSES.get(meant, meant)


def _without_message(status: int, report: ErrorReport, expected: str) -> str:
    if 300 <= status < 400:
        return "a redirect, which is not followed; look at the provider's url"
    if status < 300 and not report.is_error:
        return f"the answer is no {expected}; look at the provider's url and api"
    named = (name for name in reversed(report.types) if _WORDS.fullmatch(name))
    return next(named, "an error without a message")
