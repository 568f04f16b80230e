"""Content encodings, whole and as they arrive."""

import gzip
import zlib
from collections.abc import Callable
from functools import partial

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from signalbox.anthropic.encoding import ContentDecoder, EncodingError, TooLarge, decode, known


def _bare_deflate(data: bytes) -> bytes:
    return zlib.compress(data, wbits=-15)


ENCODERS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("x-gzip", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", _bare_deflate),
    ("br", partial(brotli.compress, quality=5)),
    ("zstd", zstandard.compress),
    ("identity", bytes),
    ("", bytes),
]
COMPRESSORS = ENCODERS[:6]
EACH = pytest.mark.parametrize(("encoding", "encode"), ENCODERS)
EACH_COMPRESSED = pytest.mark.parametrize(("encoding", "encode"), COMPRESSORS)


@given(st.binary(), st.sampled_from(ENCODERS), st.lists(st.integers(0, 200)))
def test_any_cut_decodes_to_the_same_bytes(data, encoder, cuts):
    encoding, encode = encoder
    wire, decoder, out, at = encode(data), ContentDecoder(encoding), b"", 0
    for cut in [*sorted(cuts), len(wire)]:
        out += decoder.feed(wire[at:cut])
        at = max(at, cut)
    decoder.end()
    assert out == data


@EACH
def test_a_whole_body_is_decoded(encoding, encode):
    assert decode(encode(b"body" * 999), encoding, 10_000) == b"body" * 999


@pytest.mark.parametrize("encoding", ["", "identity"])
def test_a_body_without_an_encoding_is_not_copied(encoding):
    body = b"body" * 100_000
    assert decode(body, encoding, len(body)) is body


@EACH
def test_a_body_over_the_limit_is_refused(encoding, encode):
    wire = encode(b"x" * 1000)
    assert decode(wire, encoding, 1000) == b"x" * 1000
    with pytest.raises(TooLarge):
        decode(wire, encoding, 999)


@EACH_COMPRESSED
def test_a_bomb_is_never_unpacked(encoding, encode):
    pieces, sizes = ContentDecoder(encoding, 9_000_000).pieces(encode(b"\0" * 30_000_000)), []
    with pytest.raises(TooLarge):
        sizes.extend(len(piece) for piece in pieces)
    assert 0 < max(sizes) < 9_000_000


def test_a_bomb_within_another_encoding_is_never_unpacked_either():
    with pytest.raises(TooLarge):
        decode(gzip.compress(gzip.compress(b"\0" * 20_000_000)), "gzip, gzip", 10_000)


@EACH_COMPRESSED
def test_a_body_cut_short_is_an_error(encoding, encode):
    wire = encode(b"some text that is not empty" * 9)
    with pytest.raises(EncodingError, match="cut short"):
        decode(wire[:-1], encoding, 1000)


@EACH_COMPRESSED
def test_corrupt_bytes_are_an_error(encoding, encode):
    with pytest.raises(EncodingError):
        decode(b"\x00\x00\xff\x07 this was never compressed", encoding, 1000)


@EACH
def test_nothing_decodes_to_nothing(encoding, encode):
    assert decode(b"", encoding, 10) == b""


@pytest.mark.parametrize(("encoding", "encode"), [ENCODERS[0], ENCODERS[5]])
def test_members_and_frames_follow_one_another(encoding, encode):
    assert decode(encode(b"one ") + encode(b"") + encode(b"two"), encoding, 100) == b"one two"


def test_encodings_upon_one_another_come_off_in_reverse():
    assert decode(brotli.compress(gzip.compress(b"text")), "GZIP, identity , br", 100) == b"text"


@pytest.mark.parametrize("encoding", ["compress", "gzip, what", "aws-chunked", ",".join(["gzip"] * 5)])
def test_an_unknown_encoding_raises(encoding):
    assert not known(encoding)
    with pytest.raises(EncodingError, match="not known"):
        decode(b"", encoding, 10)


@EACH
def test_known_encodings_are_known(encoding, encode):
    assert known(encoding)


def test_flushed_bytes_are_decoded_at_once():
    compressor = zlib.compressobj(wbits=31)
    decoder = ContentDecoder("gzip")
    assert decoder.feed(compressor.compress(b"event") + compressor.flush(zlib.Z_SYNC_FLUSH)) == b"event"
    with pytest.raises(EncodingError):
        decoder.end()


@given(st.binary(), st.sampled_from([name for name, _ in COMPRESSORS]))
def test_garbage_raises_nothing_else(data, encoding):
    try:
        decode(data, encoding, 1000)
    except (EncodingError, TooLarge):
        return
