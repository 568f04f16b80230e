"""Two answers to one request, side by side: who gave them, how fast, for what, and how they begin."""

from collections.abc import Iterable
from typing import NamedTuple

from mitmproxy import http

from signalbox.anthropic.api import TOKEN_FIELDS
from signalbox.inspect.annotations import noted
from signalbox.inspect.recorded import answer_words, usage_of
from signalbox.record.console import count, name, snippet

UNKNOWN = "?"
LINE = 32
"""Characters of an answer's first line, so that both stand in a pane of mitmweb."""


class Answered(NamedTuple):
    """What a row is made of, as text."""

    target: str
    status: str
    time: str
    tokens: str
    cost: str
    first_line: str


def answered(flow: http.HTTPFlow) -> Answered:
    """What a flow tells of its answer."""
    values, usage, response = noted(flow), usage_of(flow), flow.response
    model = values.get("model") or values.get("asked_model")
    to = "/".join(name(str(part)) for part in (values.get("provider") or flow.request.host, model) if part)
    cost = values.get("cost")
    used = any(getattr(usage, field) for field in TOKEN_FIELDS)
    failed = flow.error.msg if flow.error is not None else UNKNOWN
    return Answered(
        to,
        str(response.status_code) if response is not None else failed,
        _time(flow),
        f"{count(usage.total_input)}→{count(usage.output_tokens)}" if used else UNKNOWN,
        f"${cost:.4f}" if isinstance(cost, float | int) else UNKNOWN,
        _folded(snippet(next((line for line in answer_words(flow).splitlines() if line.strip()), ""))),
    )


def _folded(line: str) -> str:
    return line if len(line) <= LINE else f"{line[: LINE - 1]}…"


def _time(flow: http.HTTPFlow) -> str:
    started, response = flow.request.timestamp_start, flow.response
    if response is None or response.timestamp_end is None:
        return UNKNOWN
    whole = f"{(response.timestamp_end - started) * 1000:.0f} ms"
    if response.timestamp_start is None:
        return whole
    return f"{whole}, first byte {(response.timestamp_start - started) * 1000:.0f} ms"


def side_by_side(before: Answered, after: Answered, *, texts: bool = True) -> list[str]:
    """A line for each row. Without `texts` nothing of what the answers say."""
    rows: Iterable[tuple[str, str, str]] = [
        ("", "before", "replayed"),
        ("target", before.target, after.target),
        ("status", before.status, after.status),
        ("time", before.time, after.time),
        ("tokens", before.tokens, after.tokens),
        ("cost", before.cost, after.cost),
        *([("first line", before.first_line, after.first_line)] if texts else []),
    ]
    width = max(len(one) for _, one, _ in rows)
    return [f"{label:<11} {one:<{width}}  {other}".rstrip() for label, one, other in rows]
