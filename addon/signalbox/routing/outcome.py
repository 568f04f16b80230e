"""Classifies how an attempt ended, from status, headers and body alone.

`tests/golden/outcomes` holds recorded answers of each provider, with sources. The kinds, and what follows
from each (the contract, section 4):

    quota      the provider's quota is used up: next target, cooldown until the reset that it names
    throttle   too many requests: cooldown for `retry-after`, at most a minute
    request    this provider or model does not serve this request: next target, no cooldown
    overload   the model is busy: a short cooldown, then one trial
    auth       the router's own key was refused
    local      the router could not send: says nothing about the provider
    client     the request, or the caller's credentials, are at fault: the answer goes to the caller, also
               where a policy refused the request in an answer with a 200

The other kinds mean what their names say, and have no cooldown.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Literal, NamedTuple, Self

import msgspec

from signalbox.anthropic.errors import ErrorReport, read_error
from signalbox.anthropic.redaction import one_line
from signalbox.config.rules import Failover
from signalbox.routing import provider_errors, rate_limit_headers
from signalbox.routing.codex_limits import parse_windows
from signalbox.routing.provider_errors import ErrorKind, meaning
from signalbox.routing.retry_after import (
    BEIJING,
    in_text,
    in_words,
    limits,
    next_day,
    next_month,
    parse_go_duration,
    retry_after,
)

type Scope = Literal["key", "model", "provider", "none"]

AUTH_COOLDOWN = 60.0
"""Seconds after which a refused key is tried again: the provider may accept it again."""

OVERLOAD_COOLDOWN = 5.0
"""Seconds. An overload passes in seconds or lasts for minutes. One probe finds out; the circuit breaker
handles long overloads."""

THROTTLE_COOLDOWN = 5.0
PER_MINUTE_COOLDOWN = 30.0
"""Seconds after a limit per minute of Vertex AI, which mostly names no time (clouds.md, 2)."""
LONGEST_SHORT_COOLDOWN = 60.0
"""Seconds. The limit for throttles and overloads, whatever `retry-after` says."""

QUOTA_COOLDOWN = 300.0
"""Seconds, if neither headers nor text name the reset."""

LONGEST_QUOTA_COOLDOWN = 7 * 86400.0

_LOGIN_STATUSES = (401, 402, 403)
_DEFAULT_ON = Failover().on
_CLOUDFLARE = range(520, 527)
"""Cloudflare's statuses for an origin that is down, unreachable or too slow; they count as 502."""

_WITHIN: Mapping[ErrorKind, ErrorKind] = {
    "client": "request",
    "server": "stream_error",
    "timeout": "stream_error",
}
"""Kinds that change if the error came with a 200, which is always a failure of the attempt."""

_ZAI_HOSTS = (".z.ai", ".bigmodel.cn")


class Outcome(msgspec.Struct, frozen=True):
    """How one attempt ended. `cooldown` and `scope` are either both set or both not."""

    label: str
    """As in `x-signalbox-attempts`: a status, `connect`, `timeout`, `stream_error` or `cancelled`."""
    kind: ErrorKind
    status: int | None = None
    """The upstream's status, or the one that fits an error that came with a 200."""
    cooldown: float | None = None
    """Seconds for which `scope` should not be asked; None without a cooldown."""
    scope: Scope = "none"
    """What the cooldown blocks: the attempt's key (or login), the provider's model, or the provider."""
    wait: float | None = None
    """Seconds that the provider asks to wait (`retry-after`); None if it does not say."""
    window: str | None = None
    """The used-up window of a plan that resets last, as `7d`; None if no window is used up."""
    detail: str = ""
    """For people: type and message, one line of at most 200 characters, without secrets."""

    def because(self, detail: str) -> Self:
        """The same outcome with a reason for people."""
        return msgspec.structs.replace(self, detail=one_line(detail))

    def moves_on(self, on: frozenset[str]) -> bool:
        """Whether the next target is tried. `on` is the `failover.on` in force."""
        return self.kind != "success" and not on.isdisjoint(self._names())

    def counts(self) -> bool:
        """Whether the circuit breaker counts it as a failure (the contract, section 2, `circuit`)."""
        return self.kind not in ("request", "quota", "local") and self.moves_on(_DEFAULT_ON)

    def _names(self) -> set[str]:
        """The names in `failover.on` that this outcome matches."""
        names = {self.label, str(self.status)}
        if self.kind in ("quota", "request"):
            names.add("429")  # whatever status it hides behind: 400, 402, 403, 500
        if self.kind != "client" and self.status in _LOGIN_STATUSES:
            names.add("auth")
        if self.status in _CLOUDFLARE:
            names.add("502")
        return names


CONNECT = Outcome("connect", "connect")
"""The connection was refused or reset, the host is unreachable or unknown, or TLS failed."""
EXHAUSTED = Outcome("connect", "local")
"""The router itself can open no more connections."""
TIMEOUT = Outcome("timeout", "timeout")
STREAM_ERROR = Outcome("stream_error", "stream_error")
"""The answer broke off, or could not be read, before it began."""
EMPTY = STREAM_ERROR.because("the stream ended without an answer")
UNFINISHED = STREAM_ERROR.because("the stream ended before the message did")
CANCELLED = Outcome("cancelled", "client", detail="the client left")


def success(status: int) -> Outcome:
    return Outcome(str(status), "success", status)


def no_answer(status: int) -> Outcome:
    """A status that is not one of a final answer, such as 101: counts as a 502."""
    return Outcome(str(status), "server", 502)


def classify(
    status: int, headers: Mapping[str, str], body: bytes, *, now: datetime, own_key: bool, provider: str
) -> Outcome:
    """The outcome of an attempt that was answered. Never raises.

    `headers` have names in lower case. `body` is the decoded start of the body, of which 64 KB are read.
    `now` has a time zone. `own_key`: the router sent a key or login of its own, not the caller's. `provider`
    is the host. A 2xx is a success unless its body is a JSON error.
    """
    answer = _Answer(read_error(body), headers, now, own_key, provider)
    if not 200 <= status < 300:
        return _outcome(str(status), _kind(status, answer), status, answer)
    return _within_an_answer(answer) if answer.report.is_error else success(status)


def classify_event(error_type: str, message: str, *, now: datetime, provider: str) -> Outcome:
    """The outcome of a stream with an `event: error` before its answer began. Never raises."""
    outcome = _within_an_answer(_Answer(ErrorReport((error_type,), message), {}, now, True, provider))
    if outcome.kind == "auth":  # the key was accepted, since the stream started
        return msgspec.structs.replace(outcome, kind="request", cooldown=None, scope="none")
    return outcome


class _Answer(NamedTuple):
    """All inputs except the status."""

    report: ErrorReport
    headers: Mapping[str, str]
    now: datetime
    own_key: bool
    provider: str


def _within_an_answer(answer: _Answer) -> Outcome:
    """An error that came with a 200: always a failure of the attempt (the contract, section 4), and one that
    others may do better, but for a policy that forbids what the request says."""
    kind, status = meaning(answer.report, None)
    kind = _corrected(kind, answer)
    if not provider_errors.POLICIES.isdisjoint(answer.report.names):
        return _outcome(str(status), kind, status, answer)
    return _outcome("stream_error", _WITHIN.get(kind, kind), status, answer)


def _kind(status: int, answer: _Answer) -> ErrorKind:
    if status in _LOGIN_STATUSES and not answer.own_key:
        return "client"
    if status == 403 and answer.headers.get("content-type", "").lower().startswith("text/html"):
        return "request"  # a page of what stands before the provider, such as Cloudflare: not about the key
    return _corrected(meaning(answer.report, status).kind, answer)


def _corrected(kind: ErrorKind, answer: _Answer) -> ErrorKind:
    """The kind, corrected by the plan's windows and by whose key was sent."""
    if kind == "throttle" and _spent(answer):
        return "quota"
    return "client" if kind == "auth" and not answer.own_key else kind


def _outcome(label: str, kind: ErrorKind, status: int, answer: _Answer) -> Outcome:
    cooldown, scope = _cooldown(kind, answer)
    spent = _spent(answer) if kind == "quota" else None
    return Outcome(
        label,
        kind,
        status,
        cooldown,
        scope,
        wait=retry_after(answer.headers, answer.now) or _retry_delay(answer.report),
        window=spent.latest_reset if spent is not None else None,
        detail=answer.report.detail or _phrase(status),
    )


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase if status in HTTPStatus else ""


# cooldown


def _cooldown(kind: ErrorKind, answer: _Answer) -> tuple[float | None, Scope]:
    match kind:
        case "quota":
            spent = _spent(answer)
            named = (
                (spent and spent.seconds_left(answer.now.timestamp()))
                or _named_reset(answer)
                or QUOTA_COOLDOWN
            )
            return min(named, LONGEST_QUOTA_COOLDOWN), "model" if spent and spent.of_one_family else "key"
        case "throttle":
            is_per_minute = provider_errors.is_per_minute(answer.report)
            return _short_cooldown(PER_MINUTE_COOLDOWN if is_per_minute else THROTTLE_COOLDOWN, answer), "key"
        case "overload":
            return _short_cooldown(OVERLOAD_COOLDOWN, answer), "model"
        case "auth":
            return AUTH_COOLDOWN, "key"
        case "request" if provider_errors.NOT_IN_PLAN in answer.report.names:
            return QUOTA_COOLDOWN, "model"
    return None, "none"


def _spent(answer: _Answer) -> rate_limit_headers.RateLimitHeaders | None:
    """The rate-limit headers, if a window of the plan is used up."""
    windows = parse_windows(answer.headers, answer.now.timestamp())
    return windows if windows is not None and windows.exhausted else None


def _named_reset(answer: _Answer) -> float | None:
    """Seconds until the quota resets, from the most precise source."""
    report, headers, now = answer.report, answer.headers, answer.now
    if provider_errors.MONTHLY in report.names:
        return next_month(now)
    if provider_errors.DAILY in report.names:
        return next_day(now, BEIJING)
    is_zai = report.is_zai or f".{answer.provider}".endswith(_ZAI_HOSTS)
    if report.resets_at is not None and (left := report.resets_at - now.timestamp()) > 0:
        return left
    if report.resets_in is not None:
        return report.resets_in
    return (
        in_text(report.message, now, BEIJING if is_zai else UTC)
        or _retry_delay(report)
        or retry_after(headers, now)
        or limits(headers, now)
    )


def _short_cooldown(usual: float, answer: _Answer) -> float:
    named = retry_after(answer.headers, answer.now)
    if named is None:
        named = _retry_delay(answer.report) or limits(answer.headers, answer.now) or usual
    return min(named, LONGEST_SHORT_COOLDOWN)


def _retry_delay(report: ErrorReport) -> float | None:
    return parse_go_duration(report.retry_delay) or in_words(report.message)
