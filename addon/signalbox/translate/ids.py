"""Ids of tool calls that carry with them what their provider needs to get back.

A client returns an id as it got it, in every later request. So whatever a provider wants to see again with
a call, its own id or a signature, travels in the id: `<legal id>__sb_<base64url of a JSON object>`.
Anthropic's clients accept `^[a-zA-Z0-9_-]+$` of any length (translation.md, 10).
"""

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import Counter
from hashlib import sha256
from typing import Any

import msgspec

from signalbox.translate.halves import joined

_MARK = "__sb_"
_ILLEGAL = re.compile(r"[^a-zA-Z0-9_-]")
_LEGAL = re.compile(r"[a-zA-Z0-9_-]+")
_UNDERSCORES = re.compile(r"__+")


def pack(id: str, extra: dict[str, Any]) -> str:
    """An id for the client. `extra` is a JSON object, from which its `id` (or else `id` itself, where it is
    no legal one) is what `unpack` gives back. A legal id with nothing to carry stays as it is."""
    legal = _LEGAL.fullmatch(id) is not None and _MARK not in id
    carried = extra if legal else {"id": id, **extra}
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
    text = joined(json.dumps(value, separators=(",", ":"), ensure_ascii=False))
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode(text: str) -> dict[str, Any] | None:
    """What `encode` was given; None for anything else."""
    try:
        value = msgspec.json.decode(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, RecursionError, msgspec.MsgspecError):
        return None
    return value if isinstance(value, dict) else None


class Ids:
    """The ids of one request's calls as its provider takes them: its own ones back, each only once."""

    def __init__(self, legal: str, form: str) -> None:
        """`legal` is a pattern, `form` makes another id of the hex digits of a hash."""
        self._legal = re.compile(legal)
        self._form = form
        self._used: set[str] = set()
        self._made: Counter[str] = Counter()
        """How many ids were made of each that came."""

    def sent(self, own: str, *, is_its: bool = False) -> str:
        """For the next call in the conversation, so that the same history always gives the same ids.
        `is_its`: the provider gave this id itself, so that it takes it whatever its form."""
        found = own
        while found in self._used or not (is_its or self._legal.fullmatch(found)):
            text = f"{own}#{self._made[own]}".encode(errors="surrogatepass")
            found = self._form.format(sha256(text).hexdigest())
            self._made[own] += 1
        self._used.add(found)
        return found
