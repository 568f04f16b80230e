"""Reads the model lists of providers, and merges them into one.

Anthropic's list comes in pages: `{data: [{id, display_name, created_at, ...}], has_more, first_id, last_id}`
(anthropic-messages.md, 10). OpenAI's is one object: `{object: "list", data: [{id, created, ...}]}`
(https://platform.openai.com/docs/api-reference/models/list); some compatible servers send the bare array.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

type ModelEntry = dict[str, Any]
"""One model. `id` is a printable name; other fields are unchanged."""

LISTED = "claude-router-"
"""Prefix for ids that Claude Code would not list: it lists ids that contain `claude` or `anthropic`; older
versions list ids that begin with one of them (claude-code-gateway.md, 5)."""

LONG_CONTEXT_SUFFIX = "[1m]"

UNKNOWN = "1970-01-01T00:00:00Z"
"""Anthropic's value for an unknown time."""

LONGEST = 256
"""Characters of a name; entries with longer ones are ignored."""
MOST = 5000
"""Entries read of one list."""

_TAKEN_AS_THEY_ARE = ("claude", "anthropic")


_CLAUDE = re.compile(
    r"claude-(?:(?P<tier>opus|sonnet|haiku)-)?(?P<major>\d)(?:[.-](?P<minor>\d)(?!\d))?",
    re.ASCII | re.IGNORECASE,
)


def takes_system_turns(model: str) -> bool:
    """Whether a model may take messages of the system within a conversation. False for those of Claude's that
    are known to refuse them: Opus before 4.8, others before 5 (clouds.md, 1)."""
    found = _CLAUDE.search(model)
    if found is None:
        return True
    version = int(found["major"]), int(found["minor"] or 0)
    return version >= ((4, 8) if (found["tier"] or "").lower() == "opus" else (5, 0))


class Page(NamedTuple):
    entries: list[ModelEntry]
    last: str | None
    """The id after which the next page begins; None on the last page."""


class ModelListPage(NamedTuple):
    """The entries of one provider."""

    entries: Sequence[ModelEntry]
    is_long: Callable[[str], bool]
    """Whether the model with this id is also listed with `[1m]`."""
    is_own: bool = False
    """Whether the entries are from Anthropic; then all their fields stay."""
    is_written: bool = False
    """Whether the user wrote the entries; then a name and a description stay."""


def parse_page(body: bytes) -> Page:
    """Reads one page. Entries without a usable id are left out. Raises ValueError if it is not a list."""
    try:
        value = msgspec.json.decode(body)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    whole: dict[str, Any] = value if isinstance(value, dict) else {}
    data = value if isinstance(value, list) else whole.get("data", "")
    if data is None:  # Ollama has no models
        data = []
    if not isinstance(data, list):
        raise ValueError("it is no list of models")
    entries = [one for one in data if isinstance(one, dict) and _is_name(one.get("id"))][:MOST]
    last = whole.get("last_id")
    if not _is_name(last):
        last = entries[-1]["id"] if entries else None
    return Page(entries, last if whole.get("has_more") is True else None)


def merged(parts: Iterable[ModelListPage]) -> list[ModelEntry]:
    """One list in Anthropic's format, in the order of the parts; the first entry with an id wins."""
    found: dict[str, ModelEntry] = {}
    for part in parts:
        for entry in part.entries:
            for offered in _offered(entry, part):
                found.setdefault(offered["id"], offered)
    return list(found.values())


def is_claudes(id: str) -> bool:
    """Whether Claude Code knows the model by this id: `claude-opus-5-5`, `anthropic/claude-sonnet-4.5`."""
    return "claude" in id.lower()


def listed(id: str) -> str:
    """The id under which a model is listed."""
    return id if id.startswith(_TAKEN_AS_THEY_ARE) else LISTED + id


def _offered(entry: ModelEntry, part: ModelListPage) -> Iterator[ModelEntry]:
    id = entry["id"]
    title = entry.get("display_name") if part.is_written or listed(id) == id else id
    if not _is_name(title):
        title = id
    is_long = part.is_long(id) and not id.endswith(LONG_CONTEXT_SUFFIX)
    plain = f"{title} (200K)" if is_long and listed(id) == id else title
    base = entry if part.is_own else {"type": "model", "created_at": _created(entry)}
    if part.is_written and entry.get("description"):
        base |= {"description": entry["description"]}
    yield {**base, "id": listed(id), "display_name": plain}
    if is_long:
        long = {"id": listed(id) + LONG_CONTEXT_SUFFIX, "display_name": f"{title} (1M context)"}
        yield {**base, **long}


def _created(entry: ModelEntry) -> str:
    """The release time, from Anthropic's text or OpenAI's Unix seconds."""
    text, seconds = entry.get("created_at"), entry.get("created")
    try:
        if isinstance(text, str):
            return msgspec.convert(text, datetime).astimezone(UTC).isoformat().replace("+00:00", "Z")
        if isinstance(seconds, int):
            return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return UNKNOWN
    return UNKNOWN


def _is_name(value: object) -> bool:
    """Whether it is a printable text of limited length."""
    return isinstance(value, str) and 0 < len(value) <= LONGEST and value.isprintable()
