"""Masking of bodies where they are shown and saved: without the credentials in them.

A stream may tell a credential in pieces, which a view puts together again. So the texts of its events are
followed, each by its place, and what adds up to a credential is taken out of all events that tell it. Where a
text ends within a credential, as that of a stream in progress or of a body that was cut, the part is masked.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from signalbox.anthropic.encoding import ContentDecoder, EncodingError, TooLarge
from signalbox.anthropic.redaction import signs_of, without_secrets
from signalbox.exchange import Exchange

MASK = "***"
SHORTEST = 8
"""Characters of a credential's beginning that are masked where a text ends with them."""
TEXTS = frozenset(
    (
        *("text", "thinking", "partial_json", "signature"),  # the Messages API
        *("content", "reasoning", "reasoning_content", "refusal", "name", "arguments"),  # chat completions
        "delta",  # Responses
    )
)
"""Members of an event whose texts go on in later events."""
INDEXES = ("index", "output_index", "content_index", "summary_index")
"""Members that say to which of several texts an event belongs."""
MOST_DECODED = 64 * 1024 * 1024
"""Bytes of a decoded body beyond which it is not looked into."""

DELTA = b'data: {"type":"content_block_delta"'
"""How most events of the Messages API begin, ours and Anthropic's."""


class _Delta(msgspec.Struct, frozen=True):
    text: str = ""
    thinking: str = ""
    partial_json: str = ""
    signature: str = ""


class _DeltaEvent(msgspec.Struct, frozen=True):
    delta: _Delta = _Delta()
    index: int = 0


_DELTAS = msgspec.json.Decoder(_DeltaEvent)
_DELTA_TEXTS = _Delta.__struct_fields__

type Place = tuple[str | int, ...]
"""Where in an event's JSON a value stands: names and positions."""


def shown_secrets(exchange: Exchange) -> tuple[str, ...]:
    """The credentials that are masked where a request and its answer are shown; none where the rules say that
    secrets are shown."""
    return () if exchange.rules.inspect.secrets == "show" else exchange.known_secrets


def masked_text(text: str, exchange: Exchange) -> str:
    """A line about a request, without credentials where more than the console shows it."""
    if not exchange.is_shown:
        return text
    data = text.encode(errors="surrogateescape")
    return without_secrets(data, shown_secrets(exchange)).decode(errors="surrogateescape")


def masked(body: bytes, secrets: Collection[str], encoding: str = "") -> bytes:
    """A body without these. One that is compressed is decoded first and given decoded where it holds any;
    nothing of it is given where it cannot be decoded, or not within MOST_DECODED bytes."""
    if not secrets:
        return body
    plain = body
    if encoding:
        try:
            plain = ContentDecoder(encoding, MOST_DECODED).feed(body)
        except (EncodingError, TooLarge):
            return b""
    stream = MaskedBody(secrets)
    stream.add(plain)
    shown = stream.shown()
    return body if shown == plain else shown


class _Piece(NamedTuple):
    line: int
    place: Place
    text: str


class MaskedBody:
    """A body that comes in any pieces: a stream of events, or anything else as a whole."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = sorted(dict.fromkeys(secrets), key=len, reverse=True)
        self._sign = signs_of(self._secrets)
        self._longest = max(map(len, self._secrets), default=0)
        self._lines: list[bytes] = []
        """Lines that are complete, masked."""
        self._rest = bytearray()
        """What is not a line yet; where this is no stream, all of it."""
        self._is_stream: bool | None = None
        """None until the first bytes tell."""
        self._tails: dict[Place, list[_Piece]] = {}
        """By the kind of place, the last texts told there, while they may belong to a credential."""

    def add(self, data: bytes) -> None:
        self._rest += data
        if not self._secrets:
            return
        if self._is_stream is None and (start := self._rest.lstrip()[:1]):
            self._is_stream = start not in b"{["
        if self._is_stream and b"\n" in data:
            may_hold = self._sign.search(self._rest) is not None
            *lines, self._rest = self._rest.split(b"\n")
            for line in lines:
                self._add_line(without_secrets(bytes(line), self._secrets) if may_hold else bytes(line))

    def shown(self) -> bytes:
        """All of it so far."""
        if not self._secrets:
            return bytes(self._rest)
        lines = self._lines
        open_ends = [(tail, ends) for tail in self._tails.values() if (ends := self._open_end(_joined(tail)))]
        if open_ends:
            lines = lines.copy()
            for tail, ends in open_ends:
                length = sum(len(piece.text) for piece in tail)
                _blank(lines, tail, length - ends, length)
        rest = without_secrets(bytes(self._rest), self._secrets)
        if ends := self._open_end(rest[-self._longest :].decode("latin-1")):
            rest = rest[:-ends] + MASK.encode()
        return b"".join((*lines, rest))

    def _open_end(self, text: str) -> int:
        """How many characters at its end may be the beginning of a credential."""
        for secret in self._secrets:
            for length in range(min(len(secret) - 1, len(text)), SHORTEST - 1, -1):
                if text.endswith(secret[:length]):
                    return length
        return 0

    def _add_line(self, line: bytes) -> None:
        """A line in which no whole credential stands."""
        self._lines.append(line + b"\n")
        if not line.startswith(b"data:"):
            return
        number = len(self._lines) - 1
        try:
            if line.startswith(DELTA):  # nearly all lines: a quarter of the time
                event = _DELTAS.decode(line[5:])
                for name, text in zip(_DELTA_TEXTS, msgspec.structs.astuple(event.delta), strict=True):
                    if text:
                        self._follow((event.index, name), number, ("delta", name), text)
                return
            value = msgspec.json.decode(line[5:])
        except (msgspec.DecodeError, UnicodeDecodeError):
            return
        for kind, place, text in _texts(value, (), ()):
            self._follow(kind, number, place, text)

    def _follow(self, kind: Place, line: int, place: Place, text: str) -> None:
        """Take out what this text completes, and remember it where a later one may complete it."""
        tail = self._tails.get(kind)
        if tail is None:
            if self._is_open(text):
                self._tails[kind] = [_Piece(line, place, text)]
            return
        tail.append(_Piece(line, place, text))
        joined = _joined(tail)
        for secret in self._secrets:
            while (start := joined.find(secret)) >= 0:
                tail[:] = _blank(self._lines, tail, start, start + len(secret))
                joined = _joined(tail)
        if not self._is_open(joined):
            del self._tails[kind]
            return
        more = len(joined)
        while tail and (more := more - len(tail[0].text)) >= self._longest - 1:
            del tail[0]

    def _is_open(self, text: str) -> bool:
        """Whether a credential may begin in a text and end after it."""
        for secret in self._secrets:
            at = text.find(secret[0], max(len(text) - len(secret) + 1, 0))
            while at >= 0:
                if secret.startswith(text[at:]):
                    return True
                at = text.find(secret[0], at + 1)
        return False


def _joined(tail: list[_Piece]) -> str:
    return tail[0].text if len(tail) == 1 else "".join(piece.text for piece in tail)


def _texts(value: Any, kind: Place, place: Place) -> Iterator[tuple[Place, Place, str]]:
    """The texts of an event that go on in later ones: of which kind, where, and the text. Blocks, and entries
    of a list, are told apart by their indexes."""
    if isinstance(value, dict):
        kind = (*kind, *(at for name in INDEXES if isinstance(at := value.get(name), int)))
        for name, one in value.items():
            if isinstance(one, str):
                if name in TEXTS:
                    yield (*kind, name), (*place, name), one
            elif isinstance(one, dict | list):
                yield from _texts(one, kind, (*place, name))
    elif isinstance(value, list):
        for position, one in enumerate(value):
            yield from _texts(one, kind, (*place, position))


def _blank(lines: list[bytes], tail: list[_Piece], start: int, end: int) -> list[_Piece]:
    """Mask these characters of the texts that a tail adds up to, in the lines that tell them. Gives the tail
    as it is then."""
    pieces: list[_Piece] = []
    at = 0
    for piece in tail:
        text, first, last = piece.text, max(start - at, 0), min(end - at, len(piece.text))
        if first < last:
            text = text[:first] + (MASK if at <= start else "") + text[last:]
            lines[piece.line] = _with_text(lines[piece.line], piece.place, text)
        pieces.append(piece._replace(text=text))
        at += len(piece.text)
    return pieces


def _with_text(line: bytes, place: Place, text: str) -> bytes:
    event = msgspec.json.decode(line[5:])
    *way, name = place
    holder = event
    for step in way:
        holder = holder[step]
    holder[name] = text
    return b"data: " + msgspec.json.encode(event) + b"\n"
