"""Decodes content encodings: whole request bodies under a size limit, and answers as they arrive."""

import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

import brotli  # type: ignore[import-untyped]  # it ships no types
import zstandard

_SLICE = 256
"""Bytes of zstd that are decoded at once: its decoder takes no limit. The worst bomb expands them to 8 MB."""
PIECE = 1 << 18
"""Bytes of the largest decoded piece."""
_WINDOW = 1 << 23
"""The largest zstd window that HTTP allows: https://www.rfc-editor.org/rfc/rfc9659"""
_MOST = 4
"""The largest number of encodings of one body."""


class EncodingError(ValueError):
    """The encoding is unknown, or the data corrupt or cut short."""


class TooLarge(ValueError):
    """The decoded data is larger than the limit."""


class _Stage(Protocol):
    def feed(self, data: bytes) -> Iterator[bytes]: ...
    @property
    def ended(self) -> bool: ...


class _Zlib:
    """Consecutive gzip members or deflate streams."""

    def __init__(self, window: Callable[[int], int]) -> None:
        """`window` gives zlib's `wbits` for the first byte of a member."""
        self._window = window
        self._member: zlib._Decompress | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        is_full = False
        while data or is_full:
            member = self._member = self._member or zlib.decompressobj(self._window(data[0]))
            out = member.decompress(data, PIECE)
            yield out
            is_full = len(out) == PIECE and not member.eof
            data = member.unused_data if member.eof else member.unconsumed_tail
            if member.eof:
                self._member = None

    @property
    def ended(self) -> bool:
        return self._member is None


class _Zstd:
    """Consecutive zstd frames."""

    def __init__(self) -> None:
        self._frame: zstandard.ZstdDecompressionObj | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        for at in range(0, len(data), _SLICE):
            rest = data[at : at + _SLICE]
            while rest:
                frame = self._frame = self._frame or _zstd()
                yield frame.decompress(rest)
                rest = b""
                if frame.eof:
                    rest, self._frame = frame.unused_data, None

    @property
    def ended(self) -> bool:
        return self._frame is None


class _Brotli:
    def __init__(self) -> None:
        self._stream = brotli.Decompressor()
        self._begun = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._begun = self._begun or bool(data)
        piece = self._stream.process(data, output_buffer_limit=PIECE)
        while piece:
            yield piece
            piece = self._stream.process(b"", output_buffer_limit=PIECE)

    @property
    def ended(self) -> bool:
        return self._stream.is_finished() or not self._begun


def _gzip(_: int) -> int:
    return 16 + zlib.MAX_WBITS


def _deflate(first: int) -> int:
    """zlib's format, as the RFC defines it, or bare deflate, as some send it. zlib's first byte ends in 8."""
    return zlib.MAX_WBITS if first & 0x0F == 8 else -zlib.MAX_WBITS


def _zstd() -> "zstandard.ZstdDecompressionObj":
    return zstandard.ZstdDecompressor(max_window_size=_WINDOW).decompressobj()


_STAGES: dict[str, Callable[[], _Stage]] = {
    "gzip": lambda: _Zlib(_gzip),
    "x-gzip": lambda: _Zlib(_gzip),
    "deflate": lambda: _Zlib(_deflate),
    "zstd": _Zstd,
    "br": _Brotli,
}


def names(encoding: str) -> list[str]:
    """The encodings of a `content-encoding` header in the order applied, without `identity`."""
    split = [name.strip().lower() for name in encoding.split(",")]
    return [name for name in split if name not in ("", "identity")]


def known(encoding: str) -> bool:
    found = names(encoding)
    return len(found) <= _MOST and all(name in _STAGES for name in found)


def decode(data: bytes, encoding: str, limit: int) -> bytes:
    """The whole body. Raises EncodingError, and TooLarge as soon as there are more than `limit` bytes."""
    decoder = ContentDecoder(encoding, limit)
    decoded = decoder.feed(data)
    decoder.end()
    return decoded


class ContentDecoder:
    """Decodes bytes as they arrive, without delay. Raises EncodingError, TooLarge."""

    def __init__(self, encoding: str, limit: int | None = None) -> None:
        if not known(encoding):
            raise EncodingError(f"content-encoding {encoding[:40]!r} is not known")
        self._stages = [_STAGES[name]() for name in reversed(names(encoding))]
        self._made = [0] * (len(self._stages) + 1)
        self._limit = limit

    def feed(self, data: bytes) -> bytes:
        """What this decodes to; the same object where nothing is encoded."""
        if not self._stages:
            self._count(0, len(data))
            return data
        return b"".join(self.pieces(data))

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """The decoded bytes in pieces of at most 256 KB. Lazy: a piece is decoded when it is requested."""
        try:
            yield from self._decoded(data, 0)
        except (zlib.error, brotli.error, zstandard.ZstdError) as error:
            raise EncodingError(f"corrupt: {error}") from None

    def end(self) -> None:
        """Raises EncodingError if the data was cut short."""
        if not all(stage.ended for stage in self._stages):
            raise EncodingError("cut short")

    def _decoded(self, data: bytes, level: int) -> Iterator[bytes]:
        """Decodes the stages from `level` on."""
        self._count(level, len(data))
        if level == len(self._stages):
            for at in range(0, len(data), PIECE):
                yield data[at : at + PIECE] if len(data) > PIECE else data
            return
        for piece in self._stages[level].feed(data):
            if piece:
                yield from self._decoded(piece, level + 1)

    def _count(self, level: int, size: int) -> None:
        self._made[level] += size
        if self._limit is not None and self._made[level] > self._limit:
            raise TooLarge(f"more than {self._limit} bytes")
