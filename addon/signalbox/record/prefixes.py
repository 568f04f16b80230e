"""What of a request a provider can cache, as digests, and why less was read from its cache than was there.

A provider caches the beginning of a request: tools, then system, then messages, block by block. The digest of
a block leaves out what clients change from turn to turn and what is not part of the cached text: cache marks,
the billing block, and whether a text stands alone or as a list of one block (the contract, section 8).
"""

import re
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import Literal, NamedTuple, Self

import msgspec
from msgspec.structs import replace

from signalbox.anthropic.api import Usage
from signalbox.anthropic.privacy import without_billing_in_json
from signalbox.record.entry import Entry

type Cause = str
"""`model`, `provider`, `key`, `tools`, `system`, `message 7`, `router`, `expired` or `unknown`."""
type Protocol = Literal["messages", "other"]

WORTH_A_LINE = 10_000
"""Tokens; a miss of more is told on the console."""
SHORT_LIFE, LONG_LIFE = 300, 3600
"""Seconds since its last use for which a provider keeps what is cached; the second where a mark says `1h`."""

TOOLS, SYSTEM, MESSAGES = 0, 1, 2
"""Places of blocks; that of a block of message N is MESSAGES + N."""

_RECORD = struct.Struct("<8sII")
_KEY_LENGTH = 64
"""Bytes of a key at most, as blake2b takes them."""
_PRICED = 10_000
"""Tokens whose price is asked for: enough to be exact, too few for the prices of long contexts."""
REMEMBERED = 20_000
"""Parts (tools, system prompts, messages) whose digests are remembered: those of some dozens of long
conversations."""
_MARK = re.compile(rb',?\s*"cache_control"\s*:\s*(?:\{[^{}]*\}|null)(\s*,\s*(?="))?')
_LONG = re.compile(rb'"ttl"\s*:\s*"1h"')


class CachedBlock(NamedTuple):
    """One block: its digest, its length in bytes, and where it stands."""

    digest: bytes
    length: int
    place: int


class _Text(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["text"]
    text: msgspec.Raw
    cache_control: msgspec.Raw = msgspec.Raw(b"null")


class _Message(msgspec.Struct):
    role: str = ""
    content: msgspec.Raw = msgspec.Raw(b"null")


class _Body(msgspec.Struct):
    """The fields that are cached, of a request of any of the protocols."""

    tools: msgspec.Raw = msgspec.Raw(b"null")
    system: msgspec.Raw = msgspec.Raw(b"null")
    instructions: msgspec.Raw = msgspec.Raw(b"null")
    messages: list[msgspec.Raw] | None = None
    input: msgspec.Raw = msgspec.Raw(b"null")

    @classmethod
    def read(cls, body: bytes) -> Self | None:
        """None where it cannot be read."""
        try:
            return msgspec.json.decode(body, type=cls)
        except (ValueError, RecursionError):
            return None


class Prefix(NamedTuple):
    """The cacheable blocks of one request."""

    packed: bytes = b""
    """As they are stored: 16 bytes a block."""
    life: int = SHORT_LIFE
    """Seconds for which its marks keep them."""

    @property
    def blocks(self) -> tuple[CachedBlock, ...]:
        return unpacked(self.packed)


def pack(blocks: Iterable[CachedBlock]) -> bytes:
    """16 bytes a block: digest, length and place."""
    return b"".join(_RECORD.pack(*block) for block in blocks)


def unpacked(data: bytes) -> tuple[CachedBlock, ...]:
    """The blocks that `pack` packed."""
    return tuple(CachedBlock(*record) for record in _RECORD.iter_unpack(data[: len(data) // 16 * 16]))


class PrefixReader:
    """Reads the blocks of requests, under one key. What a conversation said before is not digested again: its
    tools, system prompt and messages are looked up by their bytes. For one thread."""

    def __init__(self, key: bytes, most: int = REMEMBERED) -> None:
        """The digests of `most` parts are remembered."""
        self.key = key
        self._key = key[:_KEY_LENGTH]
        self._most = most
        self._seen: dict[tuple[int, int, int, Protocol], bytes] = {}

    def read(self, body: bytes, protocol: Protocol = "messages") -> Prefix:
        """The blocks of a request's body; none where it cannot be read. Of another protocol than the Messages
        API each tool and each message is one block."""
        return self.read_decoded(_Body.read(body), body, protocol)

    def read_decoded(self, decoded: _Body | None, body: bytes, protocol: Protocol = "messages") -> Prefix:
        """`read` of a body that is decoded already."""
        if decoded is None:
            return Prefix()
        try:
            packed = b"".join(self._packed(decoded, protocol))
        except (ValueError, RecursionError):
            return Prefix()
        has_long = b'"ttl"' in body and _LONG.search(body)
        return Prefix(packed, LONG_LIFE if has_long else SHORT_LIFE)

    def _packed(self, body: _Body, protocol: Protocol) -> Iterator[bytes]:
        for raw, place in ((body.tools, TOOLS), (body.system, SYSTEM), (body.instructions, SYSTEM)):
            yield self._part(bytes(raw), place, protocol)
        messages = body.messages if body.messages is not None else _elements(body.input)
        for place, message in enumerate(messages, MESSAGES):
            yield self._part(bytes(message), place, protocol)

    def _part(self, raw: bytes, place: int, protocol: Protocol) -> bytes:
        name = (hash(raw), len(raw), place, protocol)
        if (packed := self._seen.get(name)) is None:
            packed = pack(CachedBlock(*found, place) for found in self._digests(raw, place, protocol))
            if len(self._seen) >= self._most:
                self._seen.clear()
            self._seen[name] = packed
        return packed

    def _digests(self, raw: bytes, place: int, protocol: Protocol) -> Iterator[tuple[bytes, int]]:
        if place == TOOLS:
            yield from (self._digest(b"", bytes(tool)) for tool in _elements(raw))
        elif place == SYSTEM:
            yield from self._content("system", raw)
        elif protocol == "messages":
            message = msgspec.json.decode(raw, type=_Message)
            yield from self._content(message.role, message.content)
        else:
            yield self._digest(b"", raw)

    def _content(self, role: str, content: bytes | msgspec.Raw) -> Iterator[tuple[bytes, int]]:
        kind = role.encode(errors="replace")
        for element in _elements(content):
            raw = bytes(element)
            text = _text(raw)
            if text is None:
                yield self._digest(kind, raw)
            elif (rest := without_billing_in_json(text)) is text or rest != b'""':
                yield self._digest(kind + b" text", rest)

    def _digest(self, kind: bytes, raw: bytes) -> tuple[bytes, int]:
        if b'"cache_control"' in raw:
            raw = _MARK.sub(_less_mark, raw)
        hashed = blake2b(kind + b"\n", digest_size=8, key=self._key)
        hashed.update(raw)
        return hashed.digest(), min(len(raw), 0xFFFFFFFF)


class Cacheable(NamedTuple):
    """What one request asked its provider to cache. Holds its bodies: not kept for long."""

    key: bytes
    """Of the digests."""
    asked: bytes
    """The client's body."""
    sent: bytes | None
    """The body that went upstream; None where nothing in it could be changed."""
    protocol: Protocol
    """Of the body that went upstream."""
    price: Callable[[Usage], float | None]
    """USD at the provider that answered."""

    def noted_in(self, entry: Entry, reader: PrefixReader) -> Entry:
        decoded = _Body.read(self.asked)
        asked, sent = reader.read_decoded(decoded, self.asked), b""
        if self.sent is not None and self.sent != self.asked:
            changed = _Body.read(self.sent)
            # Often only the model and the metadata were changed, and nothing that a provider caches.
            if self.protocol != "messages" or changed is None or changed != decoded:
                sent = reader.read_decoded(changed, self.sent, self.protocol).packed
        lives_long = _PRICED if asked.life == LONG_LIFE else 0
        written = self.price(
            Usage(cache_creation_input_tokens=_PRICED, cache_creation_1h_input_tokens=lives_long)
        )
        read = self.price(Usage(cache_read_input_tokens=_PRICED))
        price = None if written is None or read is None else (written - read) * (1e6 / _PRICED)
        return replace(entry, blocks=asked.packed, sent_blocks=sent, cache_life=asked.life, cache_price=price)


def _elements(raw: bytes | msgspec.Raw) -> list[msgspec.Raw]:
    """The elements of a list; a text counts as a list of one."""
    start = bytes(memoryview(raw)[:4])
    if start.startswith(b"["):
        return msgspec.json.decode(raw, type=list[msgspec.Raw])
    return [] if start == b"null" else [msgspec.Raw(raw)]


def _text(raw: bytes) -> bytes | None:
    """A text as JSON, be it alone or in a block of nothing else; None of any other block."""
    if raw.startswith(b'"'):
        return raw
    if b'"text"' not in raw:
        return None
    try:
        return bytes(msgspec.json.decode(raw, type=_Text).text)
    except ValueError:
        return None


def _less_mark(mark: re.Match[bytes]) -> bytes:
    """A mark goes with one comma: the one before it, or, where it comes first, the one after."""
    return mark[1] if mark[1] and mark[0].startswith(b",") else b""


class Conversation(NamedTuple):
    """Whose requests continue each other: a session's, by agent and class."""

    session: str
    agent_id: str | None
    request_class: str | None


class CacheTurn(NamedTuple):
    """One answered request of a conversation, as far as its provider's cache goes."""

    provider: str
    model: str
    """As sent."""
    key: int | None
    asked: bytes
    """The blocks of the client's body, as `Prefix.packed` gives them."""
    sent: bytes
    """Those of the body that went upstream; empty where that was the client's."""
    life: int
    """Seconds for which what it left stays in the cache."""
    at: int
    """Unix milliseconds."""
    read: int
    """Tokens read from the cache."""
    written: int
    """Tokens written to the cache."""
    fresh: int
    """Input tokens beside these."""

    @property
    def left(self) -> int:
        """Tokens that it left in the cache."""
        return self.read + self.written

    @property
    def total(self) -> int:
        """Input tokens of all kinds."""
        return self.left + self.fresh


def conversation_of(entry: Entry) -> Conversation | None:
    """None where the request names no session."""
    return Conversation(entry.session, entry.agent_id, entry.request_class) if entry.session else None


def turn_of(entry: Entry) -> CacheTurn | None:
    """None where no provider answered, or where its blocks are not known."""
    answered = next((row for row in reversed(entry.attempt_rows) if row.kind == "success"), None)
    if answered is None or entry.status != "success" or not entry.blocks:
        return None
    return CacheTurn(
        provider=answered.provider,
        model=answered.model,
        key=answered.key,
        asked=entry.blocks,
        sent=entry.sent_blocks,
        life=entry.cache_life,
        at=int(entry.ts.timestamp() * 1000),
        read=answered.cache_read_input_tokens,
        written=answered.cache_creation_input_tokens,
        fresh=answered.input_tokens,
    )


class Miss(NamedTuple):
    cause: Cause
    tokens: int
    """That were left in the cache, not read from there, and are in this request."""


def miss(before: CacheTurn, now: CacheTurn) -> Miss | None:
    """Why `now` read less than `before`, the request before it in the same conversation, had left; None
    where it did not."""
    if now.read >= before.left:
        return None
    return Miss(_cause(before, now), max(min(before.left, now.total) - now.read, 0))


def _cause(before: CacheTurn, now: CacheTurn) -> Cause:
    if before.model != now.model:
        return "model"
    if before.provider != now.provider:
        return "provider"
    if before.key != now.key:
        return "key"
    if changed := _change(unpacked(before.asked), unpacked(now.asked)):
        return changed
    if _change(unpacked(before.sent or before.asked), unpacked(now.sent or now.asked)):
        return "router"
    return "expired" if now.at - before.at > before.life * 1000 else "unknown"


def _change(before: Sequence[CachedBlock], now: Sequence[CachedBlock]) -> Cause | None:
    """The first place that is not as it was; None where the later request continues the earlier one."""
    for place, name in ((TOOLS, "tools"), (SYSTEM, "system")):
        if _of(place, before) != _of(place, now):
            return name
    messages = [block for block in now if block.place >= MESSAGES]
    earlier = [block for block in before if block.place >= MESSAGES]
    for number, block in enumerate(earlier):
        if number >= len(messages):
            return f"message {block.place - MESSAGES}"
        if (block.digest, block.place) != (messages[number].digest, messages[number].place):
            return f"message {min(block.place, messages[number].place) - MESSAGES}"
    return None


class Growth(NamedTuple):
    """Blocks that a request has and the one before it in its conversation has not, by where they stand."""

    tools: int
    system: int
    messages: int


def growth(before: Sequence[CachedBlock], now: Sequence[CachedBlock]) -> Growth:
    counted = Counter((min(block.place, MESSAGES), block.digest) for block in now)
    counted -= Counter((min(block.place, MESSAGES), block.digest) for block in before)
    return Growth(*(sum(n for (at, _), n in counted.items() if at == place) for place in range(MESSAGES + 1)))


def _of(place: int, blocks: Sequence[CachedBlock]) -> list[bytes]:
    return [block.digest for block in blocks if block.place == place]
