"""Identifies thinking blocks, so that each can be sent back to the provider that issued it and to no other.

A block is identified by its signature, which stays the same if its text is summarized or omitted; without a
signature (DeepSeek, LiteLLM) by its text; a redacted block by its data. Only a keyed digest of these is
stored: https://docs.claude.com/en/docs/build-with-claude/extended-thinking
"""

from collections.abc import Callable, Collection
from contextlib import suppress
from hashlib import blake2b

import msgspec

from .json_edit import UNREADABLE, Body, BodyError, elements
from .sse import Event

DIGEST = 16
"""Bytes of a digest."""

MOST = 10_000
"""Blocks of one answer that are digested; a stream that never ends must not fill the memory."""

MARK = b'thinking"'
"""Occurs in every thinking block and every redacted one."""

MADE_HERE = "signalbox"
"""The first part of signatures made here, and of the data of redacted thinking; a dot and the provider follow
(translation.md, 4)."""

SEARCHED_HERE = "srvtoolu_sb_"
"""How the ids of searches begin whose blocks were made here, of another protocol's answer: no provider issued
them. Those that a provider issues have no underscore after the first."""

_REDACTED = "redacted_thinking"
THINKING = ("thinking", _REDACTED)
"""Types of blocks that hold thinking."""


class ThinkingBlock(msgspec.Struct, frozen=True):
    """The fields of a content block that identify it."""

    type: str = ""
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    text: str | None = None

    @property
    def is_blank(self) -> bool:
        """Whether it is a text block of white space, which Anthropic refuses (translation.md, 2)."""
        return self.type == "text" and self.text is not None and not self.text.strip()

    @property
    def is_thinking(self) -> bool:
        return self.type in THINKING

    @property
    def translated_from(self) -> str | None:
        """The provider that its signature names, if that was made here, for thinking of another protocol."""
        return named_issuer(self.signature or self.data or "")

    @property
    def is_translated(self) -> bool:
        """Whether its signature was made here."""
        return self.translated_from is not None

    @property
    def signed(self) -> bool:
        """Whether its issuer can recognise it."""
        return bool(self.signature or self.data)

    def digest(self, key: bytes) -> bytes | None:
        """The digest that identifies the block; None if it has neither signature, text nor data."""
        kind, text = b"signature", self.signature
        if self.type == _REDACTED:
            kind, text = b"data", self.data
        elif not text:
            kind, text = b"thinking", self.thinking
        return _hash(key, kind, text).digest() if text else None


def named_issuer(signature: str) -> str | None:
    """The provider that a signature made here names; None for signatures of others."""
    mark, dot, rest = signature.partition(".")
    return rest.partition(".")[0] if mark == MADE_HERE and dot else None


type Issuer = Callable[[ThinkingBlock], str | None]
"""Gives the provider that issued a block; None if that is unknown."""

type ThinkingFilter = Callable[[ThinkingBlock], bool]
"""Decides whether a thinking block stays in the history."""


def kept_by(
    provider: str, issuer: Issuer, *, takes_unknown: bool, kin: Collection[str] = frozenset()
) -> ThinkingFilter:
    """The filter for one provider (the contract, section 5): its own thinking stays, that of others does not.

    Of its `kin`, which serve Claude too, signed blocks stay. A provider that `takes_unknown` also gets signed
    blocks of an unknown issuer, since a block may be older than the stored provenance. Signatures made here
    name their provider, and are no kin's.
    """

    def keeps(block: ThinkingBlock) -> bool:
        maker = block.translated_from
        known = issuer(block) or maker
        if known is None:
            return takes_unknown and block.signed
        return known == provider or (maker is None and block.signed and known in kin)

    return keeps


class _Typed(msgspec.Struct):
    type: str = ""


class _StreamEvent(msgspec.Struct):
    """An event of a stream."""

    type: str = ""
    content_block: ThinkingBlock = ThinkingBlock()
    delta: ThinkingBlock = ThinkingBlock()


_typed = msgspec.json.Decoder(_Typed)
_block = msgspec.json.Decoder(ThinkingBlock)
_event = msgspec.json.Decoder(_StreamEvent)


def read_block(raw: memoryview) -> ThinkingBlock:
    """Reads a content block. Fields that are not text are left out."""
    with suppress(*UNREADABLE):
        return _block.decode(raw)
    with suppress(*UNREADABLE):
        return ThinkingBlock(_typed.decode(raw).type)
    return ThinkingBlock()


class ThinkingDigester:
    """Appends the digest of each thinking block of an answer to `digests` when the block ends.

    A block that never ends is not added: the client has not got all of it.
    """

    def __init__(self, key: bytes, digests: list[bytes]) -> None:
        self.digests = digests
        self._key = key
        self._block: ThinkingBlock | None = None
        """The block in progress, without its text."""
        self._text: blake2b | None = None
        """The hash of its text so far."""

    @property
    def is_open(self) -> bool:
        """Whether a thinking block is in progress."""
        return self._block is not None

    def event(self, event: Event) -> None:
        """Takes the next event of a stream. An unreadable event is ignored."""
        if self._block is None and MARK not in event.data:
            return
        try:
            parsed = _event.decode(event.data)
        except UNREADABLE:
            return
        kind = parsed.type or event.name
        if kind == "content_block_delta":
            self._add(parsed.delta)
        elif kind in ("content_block_start", "content_block_stop", "message_delta", "message_stop"):
            self._end()
            if parsed.content_block.is_thinking:
                self._block = msgspec.structs.replace(parsed.content_block, thinking=None)
                self._add(parsed.content_block)

    def message(self, message: Body) -> None:
        """Takes an answer that is not streamed."""
        place = message.span("content")
        if place is None or message.readable.find(MARK, place.value, place.end) < 0:
            return
        with suppress(BodyError):
            for at in elements(message.readable, place.value, place.end):
                block = read_block(memoryview(message.readable)[at.value : at.end])
                self._append(block.digest(self._key) if block.is_thinking else None)

    def _add(self, part: ThinkingBlock) -> None:
        if self._block is None:
            return
        if part.signature:  # a later one replaces it
            self._block = msgspec.structs.replace(self._block, signature=part.signature)
        if part.thinking:
            self._text = self._text or _hash(self._key, b"thinking")
            self._text.update(part.thinking.encode())

    def _end(self) -> None:
        if self._block is not None:
            self._append(self._block.digest(self._key) or (self._text and self._text.digest()))
        self._block = self._text = None

    def _append(self, digest: bytes | None) -> None:
        if digest is not None and len(self.digests) < MOST:
            self.digests.append(digest)


def _hash(key: bytes, kind: bytes, text: str = "") -> blake2b:
    return blake2b(text.encode(), digest_size=DIGEST, key=key, person=kind)
