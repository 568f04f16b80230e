"""Chunks that came in one read leave as one piece."""

from itertools import chain, pairwise

import h11
import pytest
from h11._readers import ChunkedReader, ContentLengthReader, Http10Reader
from h11._receivebuffer import ReceiveBuffer
from hypothesis import given
from hypothesis import strategies as st

from signalbox.proxy.upstream import CoalescedReader as Merged


def read(reader, *reads: bytes) -> list:
    """The events that mitmproxy's loop gets, a list for each read."""
    buffer, seen = ReceiveBuffer(), []
    for data in reads:
        buffer += data
        events = []
        while (event := reader(buffer)) is not None:
            events.append(bytes(event.data) if isinstance(event, h11.Data) else type(event))
            if not isinstance(event, h11.Data):
                break
        seen.append(events)
    return seen


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def test_the_chunks_of_one_read_come_together_and_the_end_after_them():
    first = chunk(b"one ") + chunk(b"two ") + chunk(b"three")[:4]
    rest = chunk(b"three")[4:] + b"0\r\n\r\n"
    assert read(Merged(ChunkedReader()), first, rest) == [[b"one two t"], [b"hree", h11.EndOfMessage]]


def test_a_chunk_alone_is_not_kept_waiting():
    assert read(Merged(ChunkedReader()), chunk(b"one"), chunk(b"two")) == [[b"one"], [b"two"]]


def test_other_framings_work_too():
    assert read(Merged(ContentLengthReader(3)), b"ab", b"c") == [[b"ab"], [b"c", h11.EndOfMessage]]
    assert read(Merged(Http10Reader()), b"ab") == [[b"ab"]]
    assert isinstance(Merged(Http10Reader()).read_eof(), h11.EndOfMessage)


def test_what_came_before_a_fault_is_not_lost():
    reader, buffer = Merged(ChunkedReader()), ReceiveBuffer()
    buffer += chunk(b"one") + b"no length\r\n"
    assert bytes(reader(buffer).data) == b"one"
    with pytest.raises(h11.ProtocolError):
        reader(buffer)


@given(st.lists(st.binary(min_size=1, max_size=20), max_size=8), st.lists(st.integers(0, 200), max_size=5))
def test_no_cut_of_the_bytes_loses_one(chunks, cuts):
    wire = b"".join(map(chunk, chunks)) + b"0\r\n\r\n"
    places = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]
    reads = [wire[a:b] for a, b in pairwise(places)]
    events = list(chain.from_iterable(read(Merged(ChunkedReader()), *reads)))
    assert events.pop() is h11.EndOfMessage
    assert b"".join(events) == b"".join(chunks)
