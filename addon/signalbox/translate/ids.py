"""Ids of tool calls that carry with them what their provider needs to get back.

A client returns an id as it got it, in every later request. So whatever a provider wants to see again with
a call, its own id or a signature, travels in the id: `<legal id>__sb_<base64url of a JSON object>`.
Anthropic's clients accept `^[a-zA-Z0-9_-]+$` of any length (translation.md, 10).
"""

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

_MARK = "__sb_"
_ILLEGAL = re.compile(r"[^a-zA-Z0-9_-]")
_LEGAL = re.compile(r"[a-zA-Z0-9_-]+")
_UNDERSCORES = re.compile(r"__+")


def pack(id: str, extra: dict[str, Any]) -> str:
    """An id for the client. `extra` is a JSON object, from which its `id` (or else `id` itself, where it is
    no legal one) is what `unpack` gives back. A legal id with nothing to carry stays as it is."""
    legal = _LEGAL.fullmatch(id) is not None and _MARK not in id
    carried = extra if legal or "id" in extra else {"id": id, **extra}
    if not carried:
        return id
    shown = id if legal else _UNDERSCORES.sub("_", _ILLEGAL.sub("_", id))
    return f"{shown or 'call'}{_MARK}{encode(carried)}"


def unpack(id: str) -> tuple[str, dict[str, Any]]:
    """The provider's own id, and the rest of what it carries; any other id as it is, with nothing."""
    shown, _, carried = id.partition(_MARK)
    extra = decode(carried)
    if not extra:
        return id, {}
    own = extra.pop("id", shown)
    return (own if isinstance(own, str) else shown), extra


def encode(value: dict[str, Any]) -> str:
    """base64url without padding of compact JSON."""
    text = json.dumps(value, separators=(",", ":"))
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode(text: str) -> dict[str, Any] | None:
    """What `encode` was given; None for anything else."""
    try:
        value = json.loads(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
