"""`GET /v1/models`: paging of the merged model list (the contract, section 7)."""

from collections.abc import Sequence
from urllib.parse import parse_qs

import msgspec

from signalbox.anthropic.models import ModelEntry

MOST = 1000
"""The largest `limit` that Anthropic takes (anthropic-messages.md, 10)."""
PAGING = ("limit", "after_id", "before_id")


def page(entries: Sequence[ModelEntry], query: str) -> bytes:
    """The list as JSON, from after `after_id` and up to `limit` entries."""
    asked = parse_qs(query)
    ids = [entry["id"] for entry in entries]
    if after := asked.get("after_id"):
        begin = ids.index(after[0]) + 1 if after[0] in ids else len(ids)
        entries = entries[begin:]
    shown = entries[: _limit(asked.get("limit", [""])[0], len(entries))]
    return msgspec.json.encode(
        {
            "data": shown,
            "has_more": len(shown) < len(entries),
            "first_id": shown[0]["id"] if shown else None,
            "last_id": shown[-1]["id"] if shown else None,
        }
    )


def less_paging(query: str) -> str:
    """The query without the parameters for paging, which concern the merged list alone."""
    return "&".join(part for part in query.split("&") if part.partition("=")[0] not in PAGING)


def _limit(text: str, otherwise: int) -> int:
    """Everything unless `text` is a number from 1 to 1000."""
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(MOST)) else 0
    return number if 1 <= number <= MOST else otherwise
