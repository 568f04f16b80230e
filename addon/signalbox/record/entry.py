"""One request as it is recorded."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec

from signalbox.anthropic.api import TOKEN_FIELDS

type Status = Literal["success", "error", "cancelled"]
type Moment = Annotated[datetime, msgspec.Meta(tz=True)]

RECORDED = (
    "ts",
    "model",
    "backend",
    "input_tokens",
    "output_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "status",
    "upstream_model",
    "rule",
    "reason",
    "attempts",
    "latency_ms",
    "first_byte_ms",
    "cost",
    "session",
    "client",
)
"""The fields of the request log, in order."""


def milliseconds(moment: datetime) -> int:
    """Unix milliseconds, as the ledger has moments."""
    return int(moment.timestamp() * 1000)


class AttemptRow(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt, with what it alone used."""

    provider: str
    model: str = ""
    """As sent."""
    key: int | None = None
    """Which of the provider's keys, from 1; None where the router put in none."""
    started: Moment
    latency_ms: int
    """Until it failed, or until its answer ended."""
    first_byte_ms: int | None = None
    """Until the head of its answer came; None where none did."""
    outcome: str
    """As in the string of all attempts: `429`, `connect`, `timeout`, `stream_error`, `cancelled`."""
    http_status: int | None = None
    kind: str = ""
    """Kind of the outcome: `success`, `quota`, `throttle`, `overload`, `auth`, ..."""
    detail: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    cost: float | None = None
    """USD; None where no price is known."""
    cache_miss_reason: str | None = None
    """Why the provider says that it read less from its cache (anthropic-messages.md, 1)."""

    @property
    def tokens(self) -> int:
        """All four kinds together."""
        return _all_tokens(self)


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One request to /v1/messages with all its attempts."""

    ts: Moment
    model: str
    """As asked for; empty where the body named none."""
    backend: str
    """The provider that answered last."""
    input_tokens: int = 0
    output_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    status: Status
    upstream_model: str = ""
    """As sent to the provider."""
    rule: str = ""
    """Its name, `#2`, `none` or `fail-open`."""
    reason: str = ""
    attempts: str = ""
    """Every attempt with its outcome: `zai:429 anthropic:200`."""
    latency_ms: int = 0
    first_byte_ms: int | None = None
    cost: float | None = None
    """USD, of all attempts; None where the price of one that used tokens is not known."""
    session: str | None = None
    client: str | None = None

    # For the console and the ledger.
    tier: str | None = None
    http_status: int | None = None
    error_type: str | None = None

    # For the ledger only.
    agent: str | None = None
    """`main` or `subagent`."""
    stream: bool | None = None
    """Whether a streamed answer was asked for."""
    request_id: str = ""
    """As sent to the client."""
    list_cost: float | None = None
    """USD for the same tokens of the model that was asked for, at Anthropic's list prices; None where that
    model is not Claude's."""
    request_class: str | None = None
    """As Claude Code calls it: `main`, `subagent`, `workflow`, `compaction`, `auxiliary`."""
    project: str | None = None
    """The folder that the client was started in."""
    account: str | None = None
    """The config folder whose login or quota was used; None for all credentials that belong to no folder."""
    cache_cause: str | None = None
    """Why less than what the session left in the cache was read from there; None where nothing was missed."""
    missed_tokens: int | None = None
    """That were left in the cache, are in this request and were not read from there."""
    missed_cost: float | None = None
    """USD for which they were written again instead; None where no price is known."""
    agent_id: str | None = None
    """Of the subagent that asked, in its session."""
    blocks: bytes = b""
    """Digest and length of each cacheable block of the client's body, in order; see `prefixes`."""
    sent_blocks: bytes = b""
    """The same of the body that was sent; empty where that was the client's."""
    cache_life: int = 0
    """Seconds for which the provider keeps what this request left in its cache."""
    cache_price: float | None = None
    """USD for which a million tokens cost more where they are written to the cache than read from it."""
    attempt_rows: tuple[AttemptRow, ...] = ()

    # For the console only.
    why: str = ""
    """Of an error, in one line and without secrets: `rate_limit_error: slow down`."""
    passed: str = ""
    """Method and path of a request that was refused, or passed on without reading its body."""
    peer: str = ""
    """Address of a request that was refused because it had no secret."""
    snippet: str = ""
    """The last user text, whole or its beginning."""

    @property
    def tokens(self) -> int:
        """All four kinds together."""
        return _all_tokens(self)


def json_line(entry: Entry) -> bytes:
    """The line in the request log, with its newline. `ts` is UTC with milliseconds and `Z`."""
    fields = {name: getattr(entry, name) for name in RECORDED}
    fields["ts"] = entry.ts.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    try:
        return msgspec.json.encode(fields) + b"\n"
    except UnicodeEncodeError:  # a header with bytes that are no UTF-8 gives lone surrogates
        return msgspec.json.encode(encodable(fields)) + b"\n"


def encodable(value: Any) -> Any:
    """The value with `?` for lone surrogates in its texts."""
    if isinstance(value, dict):
        return {name: encodable(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [encodable(one) for one in value]
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


def _all_tokens(row: AttemptRow | Entry) -> int:
    return sum(getattr(row, name) for name in TOKEN_FIELDS)
