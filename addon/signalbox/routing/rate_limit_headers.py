"""The windows of an Anthropic plan (5 hours, 7 days, extra usage), as its answers tell of them.

They stand in headers `anthropic-ratelimit-unified-*` (anthropic-messages.md, 9). Window names are an open
set; `7d_opus` and the like count one family of models only. Times are unix seconds.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated

import msgspec

from signalbox.routing.retry_after import ahead, parse_go_duration

OVERAGE = "overage"
"""Extra usage beyond the plan. It is rejected wherever none was bought, which says nothing of the plan."""

PLAN = "plan"
"""What is used up where a refusal names no window."""

LONGEST = 40
"""Characters of a name or status that is believed."""
FURTHEST = 32 * 86400.0
"""Seconds until a reset that is believed: extra usage is counted by the month."""
UNNAMED = 300.0
"""Seconds for which a window counts that names no reset ahead."""

SAMPLES = 60
RECENT = 0.2
"""Part of a window's length in which its rate is measured."""
USUAL_LENGTH = 5 * 3600.0
SHORTEST_RISE = 60.0
"""Seconds that samples must span to tell a rate."""

_PREFIX = "anthropic-ratelimit-unified-"
_OF_A_WINDOW = re.compile(rf"{_PREFIX}(?:(\w{{1,{LONGEST}}})-)?(status|reset|utilization)", re.ASCII)
_WORD = re.compile(rf"[a-z_]{{1,{LONGEST}}}", re.ASCII)
_FRACTION = re.compile(r"\d{1,3}(\.\d{0,30})?(e-\d{1,2})?", re.ASCII | re.IGNORECASE)
_FAMILY = re.compile(r"\d+[hd]_(\w+)", re.ASCII)
_LENGTH = re.compile(r"(\d{1,3}[hd])(?:_\w+)?", re.ASCII)
_REJECTED = frozenset({"rejected", "rate_limited", "blocked"})
_MODELS = {"oi": ("fable", "mythos")}
"""Families whose window is not called as their models are."""

type UnixTime = Annotated[float, msgspec.Meta(ge=0, le=1e11)]
"""Unix seconds, bounded so that all of them are dates, whatever a file says."""


class RateLimitHeaders(msgspec.Struct, frozen=True):
    """What one answer said. Windows are named as in headers; what was missing or nonsense is not there."""

    status: Mapping[str, str]
    percent: Mapping[str, float]
    """Used, of what the plan allows; may pass 100."""
    reset: Mapping[str, float]
    overall: str = ""
    """The status of the plan as a whole."""
    claim: str = ""
    """The window that decides, as Anthropic calls it: `five_hour`, `seven_day_opus`."""
    overage_in_use: bool = False

    @property
    def exhausted(self) -> tuple[str, ...]:
        """The windows that are used up, without `overage`. One of all models hides those of one family,
        which would keep the others away too long."""
        shut = [name for name, status in self.status.items() if is_shut(status) and name != OVERAGE]
        return tuple([name for name in shut if family(name) is None] or shut)

    @property
    def of_one_family(self) -> bool:
        """Whether what is used up shuts out only one family of models."""
        return all(family(name) is not None for name in self.exhausted)

    @property
    def latest_reset(self) -> str:
        """Of those that are used up the one that is open again last."""
        return max(self.exhausted, key=lambda name: self.reset.get(name, 0.0))

    def seconds_left(self, now: float) -> float | None:
        """Seconds until the last of the windows that are used up is open again."""
        return max((self.reset[name] - now for name in self.exhausted if name in self.reset), default=None)


def is_shut(status: str) -> bool:
    return status in _REJECTED


def parse_rate_limits(headers: Mapping[str, str], now: float) -> RateLimitHeaders | None:
    """What headers (names in any case) tell; None where they tell nothing of windows. Never raises."""
    names = {name.lower(): name for name in headers if name.lower().startswith(_PREFIX)}
    if not names:
        return None
    value = {lower: headers[name].strip() for lower, name in names.items()}
    moment = datetime.fromtimestamp(now, UTC)
    status: dict[str, str] = {}
    percent: dict[str, float] = {}
    reset: dict[str, float] = {}
    for name, told in value.items():
        found = _OF_A_WINDOW.fullmatch(name)
        if found is None:
            continue
        window = found[1] or ""
        if found[2] == "status" and _WORD.fullmatch(word := told.lower()):
            status[window] = word
        elif found[2] == "utilization" and _FRACTION.fullmatch(told):
            percent[window] = float(Decimal(told) * 100)
        elif found[2] == "reset" and (left := ahead(told, moment)) and left <= FURTHEST:
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
    """Whether a refusal that shows no window as used up means one all the same, as those of older servers.

    One that is only too large for the plan shows its windows open, or none at all.
    """
    if claim:
        return short(claim) not in (*status, OVERAGE)
    return at is not None and not status.keys() - {OVERAGE}


def short(window: str) -> str:
    """`seven_day_opus`, as a claim calls it, is `7d_opus` in a header's name."""
    return window.replace("five_hour", "5h").replace("seven_day", "7d")


def family(window: str) -> str | None:
    """`opus` of `7d_opus`: the models that it counts; None where it counts all."""
    found = _FAMILY.fullmatch(window)
    return found[1] if found else None


def is_of_family(model: str, name: str) -> bool:
    return any(part in model.lower() for part in _MODELS.get(name, (name,)))


class Window(msgspec.Struct, frozen=True):
    """What is known of one window, from all answers so far."""

    percent: float = 0.0
    status: str = ""
    until: UnixTime = 0.0
    """When this stops to count: its reset, or soon after it was heard where that was not named."""
    reset: UnixTime | None = None
    refused: tuple[str, ...] = ()
    """Models that got a 429 because it is used up."""
    samples: tuple[tuple[float, float], ...] = ()
    """(time, percent) of the recent past, in order."""

    @property
    def is_rejected(self) -> bool:
        return is_shut(self.status)

    def updated(self, name: str, told: RateLimitHeaders, now: float, refused: str | None) -> "Window":
        """The same after one more answer; `refused` is the model that it refused with a 429, if it did."""
        if not any(name in part for part in (told.status, told.percent, told.reset)):
            return self
        old = self.at(now)
        status = told.status.get(name, old.status)
        percent = told.percent.get(name, old.percent)
        reset = told.reset.get(name, old.reset)
        models = {*old.refused, *([refused] if refused is not None and name in told.exhausted else ())}
        return Window(
            percent,
            status,
            now + UNNAMED if reset is None else reset,
            reset,
            tuple(sorted(models)) if is_shut(status) else (),
            _sampled(old.samples, now, percent, _length(name)) if name in told.percent else old.samples,
        )

    def lifted(self) -> "Window":
        """The same where the plan as a whole is open again."""
        return msgspec.structs.replace(self, status="", refused=())

    def at(self, now: float) -> "Window":
        """As it counts then: once its reset has passed nothing of it is used. One that is further away than
        any was heard by a clock that was wrong."""
        return self if 0 < self.until - now <= FURTHEST else Window()

    def full_at(self, name: str, now: float) -> float | None:
        """When it will be full at the recent rate; None where it is full, or resets first, or is not told."""
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
    """With one more, bounded; what was before a fall belongs to another period."""
    if samples and (percent < samples[-1][1] or now < samples[-1][0]):
        return ((now, percent),)
    recent = length * RECENT
    kept = [sample for sample in samples if sample[0] >= now - recent]
    if len(kept) > 1 and kept[-1][0] - kept[-2][0] < recent / SAMPLES:
        kept.pop()
    return (*kept, (now, percent))


def _length(window: str) -> float:
    """Seconds: 18000 of `5h`."""
    found = _LENGTH.fullmatch(window)
    seconds = parse_go_duration(found[1]) if found else None
    return seconds or USUAL_LENGTH
