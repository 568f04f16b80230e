"""Who issued which thinking block: what identifies a block, and how its identity is read from an answer.

Only the provider that issued a block takes it back. A block is known by its signature, which stays the same
when its text is shown in short or not at all; where it has none (DeepSeek, LiteLLM) by its text; a redacted
one by its data. Nothing of these is kept, only a digest under a key:
https://docs.claude.com/en/docs/build-with-claude/extended-thinking
"""

from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b

import msgspec

from .json_edit import UNREADABLE, Body, BodyError, elements
from .sse import Event

DIGEST = 16
"""Bytes of a digest."""

MOST = 10_000
"""Blocks of one answer that are told apart; a stream that never ends must not fill the memory."""

MARK = b'thinking"'
"""Stands in every thinking block and redacted one."""

MADE_HERE = "signalbox"
"""What signatures begin with that are made here, for thinking of providers that sign nothing; then follow a
dot and the provider (translation.md, 4)."""

_REDACTED = "redacted_thinking"
THINKING = ("thinking", _REDACTED)
"""Types of blocks that hold thinking."""


class ThinkingBlock(msgspec.Struct, frozen=True):
    """A content block as far as its identity goes."""

    type: str = ""
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    text: str | None = None

    @property
    def is_blank(self) -> bool:
        """Whether it is text that says nothing, which Anthropic refuses (translation.md, 2)."""
        return self.type == "text" and self.text is not None and not self.text.strip()

    @property
    def is_thinking(self) -> bool:
        return self.type in THINKING

    @property
    def signed(self) -> bool:
        """Whether its issuer can tell it as its own."""
        return bool(self.signature or self.data)

    def digest(self, key: bytes) -> bytes | None:
        """None where nothing is in it that could tell it from others."""
        kind, told = b"signature", self.signature
        if self.type == _REDACTED:
            kind, told = b"data", self.data
        elif not told:
            kind, told = b"thinking", self.thinking
        return _hash(key, kind, told).digest() if told else None


def named_issuer(signature: str) -> str | None:
    """The provider that a signature made here names; None for signatures of others."""
    mark, dot, rest = signature.partition(".")
    return rest.partition(".")[0] if mark == MADE_HERE and dot else None


type Issuer = Callable[[ThinkingBlock], str | None]
"""Tells which provider issued a block; None where that is not known."""

type ThinkingFilter = Callable[[ThinkingBlock], bool]
"""Tells whether a thinking block stays in the history."""


def kept_by(provider: str, issuer: Issuer, *, is_anthropic: bool) -> ThinkingFilter:
    """What this provider gets of the history (the contract, section 5): its own, and nothing of another's.

    Anthropic itself also gets what is signed and of unknown issue: that may be older than the router's
    memory; but a signature made here tells its provider without it. Two providers that both are Anthropic
    itself are told apart like any others: some models bind their thinking to the account
    (anthropic-messages.md, 7).
    """

    def keeps(block: ThinkingBlock) -> bool:
        known = issuer(block) or named_issuer(block.signature or "")
        return is_anthropic and block.signed if known is None else known == provider

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
    """A block of content. Fields that are not text are left out."""
    with suppress(*UNREADABLE):
        return _block.decode(raw)
    with suppress(*UNREADABLE):
        return ThinkingBlock(_typed.decode(raw).type)
    return ThinkingBlock()


class ThinkingDigester:
    """Appends to `digests` each thinking block of an answer as it ends.

    A block that never ends counts as none: the client has not got all of it either.
    """

    def __init__(self, key: bytes, digests: list[bytes]) -> None:
        self.digests = digests
        self._key = key
        self._block: ThinkingBlock | None = None
        """The one in progress, without its text."""
        self._text: blake2b | None = None
        """Of the text so far."""

    @property
    def is_open(self) -> bool:
        """Whether a thinking block is in progress."""
        return self._block is not None

    def event(self, event: Event) -> None:
        """The next event of a stream. An unreadable event is ignored."""
        if self._block is None and MARK not in event.data:
            return
        try:
            told = _event.decode(event.data)
        except UNREADABLE:
            return
        kind = told.type or event.name
        if kind == "content_block_delta":
            self._add(told.delta)
        elif kind in ("content_block_start", "content_block_stop", "message_delta", "message_stop"):
            self._end()
            if told.content_block.is_thinking:
                self._block = msgspec.structs.replace(told.content_block, thinking=None)
                self._add(told.content_block)

    def message(self, message: Body) -> None:
        """An answer that is not streamed."""
        place = message.span("content")
        if place is None or message.readable.find(MARK, place.value, place.end) < 0:
            return
        with suppress(BodyError):
            for at in elements(message.readable, place.value, place.end):
                block = read_block(memoryview(message.readable)[at.value : at.end])
                self._tell(block.digest(self._key) if block.is_thinking else None)

    def _add(self, part: ThinkingBlock) -> None:
        if self._block is None:
            return
        if part.signature:  # another one replaces it
            self._block = msgspec.structs.replace(self._block, signature=part.signature)
        if part.thinking:
            self._text = self._text or _hash(self._key, b"thinking")
            self._text.update(part.thinking.encode())

    def _end(self) -> None:
        if self._block is not None:
            self._tell(self._block.digest(self._key) or (self._text and self._text.digest()))
        self._block = self._text = None

    def _tell(self, digest: bytes | None) -> None:
        if digest is not None and len(self.digests) < MOST:
            self.digests.append(digest)


def _hash(key: bytes, kind: bytes, text: str = "") -> blake2b:
    return blake2b(text.encode(), digest_size=DIGEST, key=key, person=kind)
