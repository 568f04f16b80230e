"""The estimate of a request's input tokens."""

import json

import pytest

from signalbox.messages.tokens import PER_BYTE, PER_IMAGE, estimate


def _sized(source: dict[str, str], text: str = "") -> bytes:
    return json.dumps({"messages": [{"content": [{"type": "image", "source": source}, text]}]}).encode()


def test_text_counts_by_its_bytes():
    raw = b'{"messages": "' + b"a" * 10_000 + b'"}'
    assert estimate(raw) == round(len(raw) * PER_BYTE)
    assert estimate(raw, 0.5) == round(len(raw) * 0.5)


@pytest.mark.parametrize("order", ["type media_type data", "data media_type type", "media_type data type"])
def test_an_image_counts_the_same_however_large_it_is(order):
    parts = {"type": "base64", "media_type": "image/png"}
    small = _sized({name: parts.get(name, "A" * 4_000) for name in order.split()})
    large = _sized({name: parts.get(name, "A" * 4_000_000) for name in order.split()})
    assert estimate(small) == estimate(large)
    assert PER_IMAGE < estimate(large) < PER_IMAGE + 100


def test_every_image_counts():
    source = '{"type": "base64", "media_type": "image/png", "data" : "%s"}' % ("A" * 5_000)
    assert estimate(f"[{source},\n{source},{source}]".encode()) == pytest.approx(3 * PER_IMAGE, abs=100)


def test_data_that_is_not_base64_counts_as_text():
    plain = _sized({"type": "text", "media_type": "text/plain", "data": "word " * 1000}, '"base64"')
    assert estimate(plain) == round(len(plain) * PER_BYTE)
    redacted = b'[{"type":"redacted_thinking","data":"%b"},{"type":"base64"}]' % (b"A" * 9_000)
    assert estimate(redacted) == round(len(redacted) * PER_BYTE)


@pytest.mark.parametrize(
    "raw", [b"", b'"base64""data"', b'"base64""data":"', b'"data":"x"base64"', b'"base64","data":5']
)
def test_any_bytes_have_an_estimate(raw):
    assert estimate(raw) >= 0
