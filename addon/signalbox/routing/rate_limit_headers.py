"""Reads the windows of an Anthropic plan (5 hours, 7 days, extra usage) from the headers of its answers.

The headers are `anthropic-ratelimit-unified-*` (anthropic-messages.md, 9). Window names are an open set;
`7d_opus` and the like count one family of models only. Times are unix seconds.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated

import msgspec

from signalbox.routing.retry_after import ahead, parse_go_duration

OVERAGE = "overage"
"""Extra usage beyond the plan. It is `rejected` if none was bought, which says nothing about the plan."""

PLAN = "plan"
"""The window that a refusal stands for if it names none."""

LONGEST = 40
"""Characters of the longest name or status that is accepted."""
FURTHEST = 32 * 86400.0
"""Seconds until the latest reset that is accepted: extra usage is counted by the month."""
UNNAMED = 300.0
"""Seconds for which a window without a reset time counts."""

SAMPLES = 60
RECENT = 0.2
"""The part of a window's length over which its rate is measured."""
USUAL_LENGTH = 5 * 3600.0
SHORTEST_RISE = 60.0
"""Seconds that samples must span to give a rate."""

_PREFIX = "anthropic-ratelimit-unified-"
_OF_A_WINDOW = re.compile(rf"{_PREFIX}(?:(\w{{1,{LONGEST}}})-)?(status|reset|utilization)", re.ASCII)
_WORD = re.compile(rf"[a-z_]{{1,{LONGEST}}}", re.ASCII)
_FRACTION = re.compile(r"\d{1,3}(\.\d{0,30})?(e-\d{1,2})?", re.ASCII | re.IGNORECASE)
_FAMILY = re.compile(r"\d+[hdm]_(\w+)", re.ASCII)
_LENGTH = re.compile(r"(\d{1,3}[hd]|\d{1,6}m)(?:_\w+)?", re.ASCII)
_NOT_IN_NAME = re.compile(r"\W+", re.ASCII)
_REJECTED = frozenset({"rejected", "rate_limited", "blocked"})
_MODELS = {"oi": ("fable", "mythos")}
"""Families whose window has another name than their models."""

type UnixTime = Annotated[float, msgspec.Meta(ge=0, le=1e11)]
"""Unix seconds, bounded so that any value read from a file is a valid date."""


class RateLimitHeaders(msgspec.Struct, frozen=True):
    """The rate-limit headers of one answer, by the windows' names. Missing or invalid values are left out."""

    status: Mapping[str, str]
    percent: Mapping[str, float]
    """How much of the plan is used; may be above 100."""
    reset: Mapping[str, float]
    overall: str = ""
    """The status of the plan as a whole."""
    claim: str = ""
    """The window that decides, in Anthropic's words: `five_hour`, `seven_day_opus`."""
    overage_in_use: bool = False

    @property
    def exhausted(self) -> tuple[str, ...]:
        """The windows that are used up, without `overage`. If one of them counts all models, those of one
        family are left out, since their resets would block all models for too long."""
        shut = [name for name, status in self.status.items() if is_shut(status) and name != OVERAGE]
        return tuple([name for name in shut if family(name) is None] or shut)

    @property
    def of_one_family(self) -> bool:
        """Whether all windows that are used up count one family of models only."""
        return all(family(name) is not None for name in self.exhausted)

    @property
    def latest_reset(self) -> str:
        """The window that resets last of those that are used up."""
        return max(self.exhausted, key=lambda name: self.reset.get(name, 0.0))

    def seconds_left(self, now: float) -> float | None:
        """Seconds until all windows that are used up have reset."""
        return max((self.reset[name] - now for name in self.exhausted if name in self.reset), default=None)


def is_shut(status: str) -> bool:
    return status in _REJECTED


def parse_rate_limits(headers: Mapping[str, str], now: float) -> RateLimitHeaders | None:
    """Reads headers, whose names may have any case. None if there are none about windows. Never raises."""
    names = {name.lower(): name for name in headers if name.lower().startswith(_PREFIX)}
    if not names:
        return None
    value = {lower: headers[name].strip() for lower, name in names.items()}
    moment = datetime.fromtimestamp(now, UTC)
    status: dict[str, str] = {}
    percent: dict[str, float] = {}
    reset: dict[str, float] = {}
    for name, text in value.items():
        found = _OF_A_WINDOW.fullmatch(name)
        if found is None:
            continue
        window = found[1] or ""
        if found[2] == "status" and _WORD.fullmatch(word := text.lower()):
            status[window] = word
        elif found[2] == "utilization" and _FRACTION.fullmatch(text):
            percent[window] = float(Decimal(text) * 100)
        elif found[2] == "reset" and (left := ahead(text, moment)) and left <= FURTHEST:
            reset[window] = now + left
    overall, at = status.pop("", ""), reset.pop("", None)
    percent.pop("", None)
    claim = value.get(f"{_PREFIX}representative-claim", "")
    claim = claim if _WORD.fullmatch(claim) else ""
    shut = [name for name, word in status.items() if is_shut(word) and name != OVERAGE]
    if is_shut(overall) and not shut and _may_be_the_plan(claim, status, at):
        shut = [short(claim) or PLAN]
        status[shut[0]] = overall
    if at is not None:
        reset = dict.fromkeys(shut, at) | reset
    in_use = value.get(f"{_PREFIX}overage-in-use", "").lower() == "true"
    if not (status or percent or reset or overall):
        return None
    return RateLimitHeaders(status, percent, reset, overall, claim, in_use)


def _may_be_the_plan(claim: str, status: Mapping[str, str], at: float | None) -> bool:
    """Whether a refusal that reports no window as used up still means the plan, as from older servers.

    A request that is only too large for the plan gets open windows, or none.
    """
    if claim:
        return short(claim) not in (*status, OVERAGE)
    return at is not None and not status.keys() - {OVERAGE}


def short(window: str) -> str:
    """The name of a window in headers, `7d_opus`, for its name in a claim, `seven_day_opus`."""
    return window.replace("five_hour", "5h").replace("seven_day", "7d")


def family(window: str) -> str | None:
    """The family of models that a window counts: `opus` for `7d_opus`; None if it counts all models."""
    found = _FAMILY.fullmatch(window)
    return found[1] if found else None


def is_of_family(model: str, name: str) -> bool:
    plain = _NOT_IN_NAME.sub("_", model.lower())
    return any(part in plain for part in _MODELS.get(name, (name,)))


class Window(msgspec.Struct, frozen=True):
    """The state of one window, from all answers so far."""

    percent: float = 0.0
    status: str = ""
    until: UnixTime = 0.0
    """When this state expires: at the reset, or `UNNAMED` after the answer if no reset was given."""
    reset: UnixTime | None = None
    refused: tuple[str, ...] = ()
    """Models that got a 429 because the window is used up."""
    samples: tuple[tuple[float, float], ...] = ()
    """(time, percent) of the recent past, in order."""
    heard: UnixTime = 0.0
    """When an answer last reported it."""

    @property
    def is_rejected(self) -> bool:
        return is_shut(self.status)

    def updated(self, name: str, headers: RateLimitHeaders, now: float, refused: str | None) -> "Window":
        """The state after one more answer; `refused` is the model as sent, if the answer is a 429."""
        if not any(name in part for part in (headers.status, headers.percent, headers.reset)):
            return self
        old = self.at(now)
        status = headers.status.get(name, old.status)
        percent = headers.percent.get(name, old.percent)
        reset = headers.reset.get(name, old.reset)
        models = {*old.refused, *([refused] if refused is not None and name in headers.exhausted else ())}
        return Window(
            percent,
            status,
            now + UNNAMED if reset is None else reset,
            reset,
            tuple(sorted(models)) if is_shut(status) else (),
            _sampled(old.samples, now, percent, _length(name)) if name in headers.percent else old.samples,
            now,
        )

    def lifted(self, now: float) -> "Window":
        """The state once the plan as a whole is open again."""
        return msgspec.structs.replace(self, status="", refused=(), heard=now)

    def at(self, now: float) -> "Window":
        """The state at a time: unused once its reset has passed. A reset further away than possible came from
        a wrong clock, and counts as passed."""
        return self if 0 < self.until - now <= FURTHEST else Window()

    def full_at(self, name: str, now: float) -> float | None:
        """When it will be full at the recent rate; None if it is full, resets before that, or that is
        unknown."""
        if len(self.samples) < 2 or self.percent >= 100 or self.until <= now:
            return None
        since = now - _length(name) * RECENT
        first = next((sample for sample in self.samples if sample[0] >= since), self.samples[-1])
        last = self.samples[-1]
        span, rise = last[0] - first[0], last[1] - first[1]
        if span < SHORTEST_RISE or rise <= 0:
            return None
        full = last[0] + (100 - last[1]) * span / rise
        return full if now <= full < self.until else None


def _sampled(
    samples: tuple[tuple[float, float], ...], now: float, percent: float, length: float
) -> tuple[tuple[float, float], ...]:
    """The samples with one more, bounded. Samples before a fall belong to an earlier period and are
    dropped."""
    if samples and (percent < samples[-1][1] or now < samples[-1][0]):
        return ((now, percent),)
    recent = length * RECENT
    kept = [sample for sample in samples if sample[0] >= now - recent]
    if len(kept) > 1 and kept[-1][0] - kept[-2][0] < recent / SAMPLES:
        kept.pop()
    return (*kept, (now, percent))


def _length(window: str) -> float:
    """The window's length in seconds: 18000 for `5h`."""
    found = _LENGTH.fullmatch(window)
    seconds = parse_go_duration(found[1]) if found else None
    return seconds or USUAL_LENGTH
