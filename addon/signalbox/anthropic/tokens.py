"""Estimates the input tokens of a request without a tokenizer.

Text consists of runs (of letters, digits, punctuation), and a run is about one token to every tokenizer. Long
words, capitals inside words, line ends and gaps cost more, and each character of other scripts has a price.
So bytes are mapped to classes, patterns of classes are counted, and a tokenizer is a list of prices
(`tokenizers`; accuracy: docs/token-estimate.md). The usage that the conversation's provider reports corrects
the estimate from the second request on (`Facts.calibration`).
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import add, mul
from string import ascii_lowercase, ascii_uppercase, digits

from signalbox.anthropic.tokenizers import DEFAULT, OTHERS, PATTERNS, TOKENIZERS, Tokenizer

PER_IMAGE = 1600
"""Tokens of one base64 image or document of any size: about the cost of a large image."""

PER_MESSAGE = 2
"""Tokens around a message in a chat template, besides its punctuation, which is counted."""

SAMPLE = 24 * 1024
"""Bytes of a longer text that are sampled, which costs about 1.5 % of precision."""
STRETCH = 256
"""Bytes of one sampled piece; the pieces are spread evenly."""

_NAMED: tuple[tuple[str, Iterable[int]], ...] = (
    ("a", ascii_lowercase.encode()),
    ("A", ascii_uppercase.encode()),
    ("0", digits.encode()),
    ("_", b"_"),
    (" ", b" \t"),
    ("\n", b"\r\n"),
    ("l", range(0xC2, 0xCE)),
    ("s", (*range(0xCE, 0xD0), *range(0xD4, 0xE2))),
    ("c", range(0xD0, 0xD4)),
    ("t", b"\xe2"),
    ("k", b"\xe3"),
    ("h", range(0xE4, 0xEA)),
    ("g", range(0xEA, 0xEE)),
    ("w", b"\xee\xef"),
    ("e", range(0xF0, 0x100)),
)
"""Classes of characters by the first byte in UTF-8; all others are punctuation (`.`)."""

_names = {byte: name for name, first in _NAMED for byte in first}
_CLASSES = "".join(_names.get(byte, ".") for byte in range(256)).encode()
_FOLLOWING = bytes(range(0x80, 0xC2))
"""Continuation bytes, and two bytes that UTF-8 does not use."""
_WORDS, _MARKS = (bytes(120 if byte in of else 32 for byte in range(256)) for of in (b"aA", b"."))
"""Translation tables that map the classes of a run to `x`, all others to a space."""

_SIMPLIFIED, _TRADITIONAL = (tuple(c.encode() for c in text) for text in ("这们说对为时", "這們說對會國"))
"""Frequent characters that occur in only one of the two scripts."""

_SKELETON = re.compile(
    rb'[\[{,\s]{0,16}+"(?:'
    rb'(?:role|id|tool_use_id|media_type)"\s*+:\s*+"[^"\\]*+"'
    rb'|type"\s*+:\s*+"(?:text|tool_use|tool_result|thinking|image|document|base64|ephemeral)"'
    rb'|(?:content|text|input|source|data|thinking|signature|cache_control)"\s*+:)\s*+'
)
"""The JSON around the text of blocks and messages, which providers do not count."""

_DATA, _SIGNATURE = b'"data"', b'"signature"'
_VALUE = re.compile(rb'[ \t\n\r]*:[ \t\n\r]*"')
_NEAR = 200

_PRICES: dict[Tokenizer, tuple[float, ...]] = dict(
    zip(TOKENIZERS, zip(*OTHERS.values(), *PATTERNS.values(), strict=True), strict=True)
)


@dataclass(frozen=True, slots=True)
class Measured:
    """What costs tokens in a text."""

    counts: tuple[float, ...] = ()
    """Number of occurrences of each pattern, in the order of the prices."""
    apart: int = 0
    """Tokens that are the same for all tokenizers: images, and around messages."""
    size: int = 0
    """Bytes of the text."""
    at_once: int = 0
    """How many of them were looked at together; the others were added by later requests."""

    def tokens(self, tokenizer: Tokenizer = DEFAULT) -> int:
        """The estimate for this tokenizer."""
        priced: Iterator[float] = map(mul, self.counts, _PRICES[tokenizer])
        return round(max(sum(priced), 0)) + self.apart


def measure_grown(pieces: Sequence[memoryview], before: Measured | None) -> Measured:
    """`measure` of these pieces, joined. Where they go on from the text of `before`, as the requests of a
    conversation do, only what was added to the last one is looked at. All is measured anew where there is
    less than before, or twice as much as was measured together."""
    size, last = sum(map(len, pieces)), pieces[-1] if pieces else memoryview(b"")
    if before is None or not before.size <= size <= min(2 * before.at_once, before.size + len(last)):
        return measure(b"".join(pieces))
    added = measure(bytes(last[len(last) - (size - before.size) :]))
    counts = tuple(map(add, before.counts, added.counts))
    return Measured(counts, before.apart + added.apart, size, before.at_once)


def measure(raw: bytes) -> Measured:
    """Counts the JSON of a body's system, tools and messages, joined. Takes 2 ms per MB. Never raises."""
    images, text = _without_data(raw)
    shown = _sample(text)
    scale = len(text) / max(len(shown), 1)
    messages = shown.count(b'"role"') * scale
    counts = tuple(count * scale for count in _counts(_plain(shown)))
    return Measured(counts, round(messages * PER_MESSAGE) + images * PER_IMAGE, len(raw), len(raw))


def _sample(text: bytes) -> bytes:
    if len(text) <= SAMPLE:
        return text
    step = len(text) * STRETCH // SAMPLE
    return b"".join(text[at : at + STRETCH] for at in range(0, len(text), step))


def _plain(shown: bytes) -> bytes:
    """JSON without its structure and escapes. Escaped backslashes are removed first."""
    shown = _SKELETON.sub(b" ", shown)
    if b"\\" not in shown:
        return shown
    shown = shown.replace(b"\\\\", b"\x00").replace(b'\\"', b'"')
    shown = shown.replace(b"\\n", b"\n").replace(b"\\r", b"").replace(b"\\t", b"\t").replace(b"\\/", b"/")
    if b"\\u" in shown:
        text = shown.decode(errors="ignore").encode("raw_unicode_escape")
        shown = text.decode("raw_unicode_escape", "ignore").encode(errors="surrogatepass")
    return shown


def _counts(plain: bytes) -> Iterator[float]:
    """In the order of the prices."""
    classes = b" " + plain.translate(_CLASSES, _FOLLOWING)
    yield classes.translate(_WORDS).count(b" x")
    yield classes.translate(_MARKS).count(b" x")
    yield plain.count(b"\t")
    yield from _chinese(plain, classes.count(b"h"))
    yield from map(classes.count, PATTERNS)


def _chinese(plain: bytes, characters: int) -> tuple[float, float]:
    """Numbers of simplified and traditional characters; half of each if the text does not show which."""
    if not characters:
        return 0, 0
    simplified, traditional = (sum(map(plain.count, marks)) for marks in (_SIMPLIFIED, _TRADITIONAL))
    share = simplified / (simplified + traditional) if simplified + traditional else 0.5
    return characters * share, characters * (1 - share)


def _without_data(raw: bytes) -> tuple[int, bytes]:
    """The number of base64 sources, and all bytes without them and without signatures."""
    images = [span for span in _values(raw, _DATA) if _is_base64(raw, *span)]
    hidden = sorted([*images, *_values(raw, _SIGNATURE)])
    starts, ends = [start for start, _ in hidden], [end for _, end in hidden]
    kept = zip([0, *ends], [*starts, len(raw)], strict=True)
    return len(images), b"".join(raw[start:end] for start, end in kept) if hidden else raw


def _values(raw: bytes, key: bytes) -> Iterator[tuple[int, int]]:
    """The spans of the string values of a quoted key."""
    at = raw.find(key)
    while at >= 0:
        at += len(key)
        if value := _VALUE.match(raw, at):
            start, at = value.end(), raw.find(b'"', value.end())
            if at < 0:
                return
            yield start, at
        at = raw.find(key, at)


def _is_base64(raw: bytes, start: int, end: int) -> bool:
    """Whether the object around this `data` is a base64 source, and not redacted thinking or plain text."""
    opens = raw.rfind(b"{", max(start - _NEAR, 0), start)
    closes = raw.find(b"}", end, end + _NEAR)
    return b'"base64"' in raw[max(opens, start - _NEAR, 0) : start] + raw[end : max(closes, end)]
