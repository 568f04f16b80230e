"""Stores what a provider needs in later requests inside the ids of tool calls and signatures of thinking.

A client sends an id back unchanged in every later request. So the id carries the provider's own id, or a
signature: `<legal id>__sb_<base64url of a JSON object>`. Anthropic's clients accept `^[a-zA-Z0-9_-]+$` of any
length (translation.md, 10). Providers of chat completions sign no thinking; the signatures made here hold the
field in which the provider takes its reasoning back (translation.md, 4).
"""

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import Counter
from collections.abc import Iterable
from hashlib import sha256
from typing import Any

import msgspec

from signalbox.anthropic.issued import MADE_HERE
from signalbox.anthropic.json_edit import whole_characters
from signalbox.openai.incoming import Object, as_text

_MARK = "__sb_"
_ILLEGAL = re.compile(r"[^a-zA-Z0-9_-]")
_LEGAL = re.compile(r"[a-zA-Z0-9_-]+")
_UNDERSCORES = re.compile(r"__+")


def pack(id: str, extra: dict[str, Any]) -> str:
    """An id for the client that carries `extra`, a JSON object. An `id` in `extra` is the one that `unpack`
    gives back, else `id` is. A legal id without `extra` stays as it is."""
    legal = _LEGAL.fullmatch(id) is not None and _MARK not in id
    carried = extra if legal else {"id": id, **extra}
    if not carried:
        return id
    shown = id if legal else _UNDERSCORES.sub("_", _ILLEGAL.sub("_", id))
    return f"{shown or 'call'}{_MARK}{_encode(carried)}"


def unpack(id: str) -> tuple[str, dict[str, Any]]:
    """The provider's own id, and the object that the id carries. An id that carries nothing is returned
    unchanged, with `{}`."""
    if _MARK not in id:
        return id, {}
    shown, _, carried = id.partition(_MARK)
    extra = _decode(carried)
    if not extra:
        return id, {}
    own = extra.pop("id", shown)
    return (own if isinstance(own, str) else shown), extra


def _encode(value: dict[str, Any]) -> str:
    """base64url without padding of compact JSON."""
    text = whole_characters(json.dumps(value, separators=(",", ":"), ensure_ascii=False))
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode(text: str) -> dict[str, Any] | None:
    """The object that `_encode` was given; None for any other text."""
    try:
        value = msgspec.json.decode(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, RecursionError, msgspec.MsgspecError):
        return None
    return value if isinstance(value, dict) else None


class RequestIds:
    """Chooses the ids of the calls in one request, in the form that the provider takes; each is used once."""

    def __init__(self, legal: str, form: str) -> None:
        """`legal` is a pattern; `form` is a format string that turns the hex digits of a hash into an id."""
        self._legal = re.compile(legal)
        self._form = form
        self._used: set[str] = set()
        self._made: Counter[str] = Counter()
        """Number of ids made for each id of the client."""

    def sent(self, own: str, *, is_its: bool = False) -> str:
        """The id to send for the next call of the conversation; the same history gives the same ids.
        `is_its`: the provider made this id, so it takes it in any form."""
        found = own
        while found in self._used or not (is_its or self._legal.fullmatch(found)):
            text = f"{own}#{self._made[own]}".encode(errors="surrogatepass")
            found = self._form.format(sha256(text).hexdigest())
            self._made[own] += 1
        self._used.add(found)
        return found


_COUNTED = re.compile(r"[_-]*(?:(?:[a-zA-Z]+|[0-9]{1,6})(?:[_-]+|$))*")
"""Words and small numbers, which another answer may use too."""


_LONGEST_OF_ALL = 40
"""Characters of an id that every provider takes; a longer id carries the name of its provider."""


class AnswerIds:
    """Makes the ids that a client gets for the tool calls of one answer: legal, and unique in a conversation.

    Some providers count their calls from 0 in every answer (`call_0`, `tool_0_Read`, `functions.Bash:0`);
    such ids are extended by the random `seed`, and carry the original for `provider`.
    """

    def __init__(self, seed: str, provider: str) -> None:
        self._seed = seed
        self._provider = provider
        self._given = 0
        self._used: set[str] = set()

    def given(self, own: str, name: str, extra: Object | None = None) -> str:
        """The id of the next call, which calls the tool `name`. `own` is the provider's id, or empty; the id
        also carries `extra`."""
        carried = dict(extra or {})
        shown = own
        if not own:
            shown = f"toolu_{self._seed}{self._given}"
        elif own in self._used or pack(own, {}) != own or _COUNTED.fullmatch(own.replace(name, "")):
            shown = f"{own}_{self._seed}{self._given}"
            carried["id"] = own
        if carried or len(own) > _LONGEST_OF_ALL:
            carried["by"] = self._provider
        self._given += 1
        self._used.add(own)
        return pack(shown, carried)


def sign(provider: str, text: str, payload: dict[str, Any]) -> str:
    """`signalbox.<provider>.<16 hex of a hash of the text>.<base64url of the payload as JSON>`.

    In the payload `key` is the field of the answer that held the reasoning, and `reasoning_details` are
    OpenRouter's, verbatim.
    """
    digest = sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]
    return ".".join((MADE_HERE, provider, digest, _encode(payload)))


def payload_of(signature: str, provider: str) -> dict[str, Any]:
    """The payload; empty if the thinking is not from this provider."""
    if not signature.startswith(MADE_HERE):
        return {}
    prefix, *parts = signature.split(".")
    ours = prefix == MADE_HERE and len(parts) == 3 and parts[0] == provider
    return (_decode(parts[2]) or {}) if ours else {}


_PIECES = ("text", "summary", "data")


class ReasoningDetails:
    """OpenRouter's `reasoning_details` of one block: signed or encrypted thinking that goes back verbatim and
    in order (openai-chat.md, 3). An entry is streamed in pieces with the same `index`."""

    def __init__(self) -> None:
        self._entries: list[Object] = []

    def add(self, pieces: Iterable[Object]) -> None:
        for piece in pieces:
            last = self._entries[-1] if self._entries else {}
            if piece.get("index") is None or any(last.get(n) != piece.get(n) for n in ("index", "type")):
                self._entries.append(dict(piece))
            else:
                _extend(last, piece)

    @property
    def is_opaque(self) -> bool:
        """Whether an entry is encrypted or signed."""
        return any(as_text(entry.get(name)) for entry in self._entries for name in ("data", "signature"))

    def payload(self) -> Object:
        """As ids and signatures carry it; empty without entries."""
        return {"reasoning_details": self._entries} if self._entries else {}


def _extend(entry: Object, piece: Object) -> None:
    for name, value in piece.items():
        if name in _PIECES and isinstance(value, str) and isinstance(entry.get(name), str):
            entry[name] += value
        elif value is not None:
            entry[name] = value
