"""The answer of OpenAI's counter of tokens."""

import gzip

import pytest

from signalbox.responses.counting import CountReader

COUNT = b'{"object":"response.input_tokens","input_tokens":4711}'


def read(body: bytes, encoding: str = "", cut: int = 0) -> tuple[bytes, CountReader]:
    reader = CountReader(encoding)
    out = reader.feed(body[:cut]) + reader.feed(body[cut:]) + reader.end()
    return out, reader


@pytest.mark.parametrize("cut", range(len(COUNT)))
def test_a_count_is_reported_as_anthropic_does_wherever_it_is_cut(cut):
    out, reader = read(COUNT, cut=cut)
    assert (out, reader.facts.complete, reader.facts.cut) == (b'{"input_tokens":4711}', True, "")


def test_a_compressed_count_is_read():
    assert read(gzip.compress(COUNT), "gzip")[0] == b'{"input_tokens":4711}'


@pytest.mark.parametrize(
    ("body", "encoding", "why"),
    [
        (b"", "", "the answer is no count of tokens"),
        (b'{"input_tokens":"many"}', "", "the answer is no count of tokens"),
        (b"[1]", "", "the answer is no count of tokens"),
        (b"x" * 70_000, "", "the answer is too large"),
        (b"not gzip", "gzip", "its content-encoding is"),
        (COUNT, "strange", "strange"),
    ],
)
def test_anything_else_is_no_answer(body, encoding, why):
    out, reader = read(body, encoding)
    assert out == b""
    assert not reader.facts.complete
    assert why in reader.facts.cut


def test_an_error_within_an_answer_is_kept_for_failover():
    out, reader = read(b'{"error":{"type":"server_error","message":"Down"}}')
    assert (out, reader.facts.error) == (b"", ("server_error", "Down"))
    assert reader.facts.provider_error is not None
