"""Server-sent events cut out of a stream."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalbox.anthropic.sse import Event, Splitter, parse_event

STREAM = (
    "\ufeffevent: message_start\ndata: {}\n\n"
    ": keep-alive\n\n"
    "\n\n\n"
    "event:ping\nid: 3\nretry: 10\ndata:{}\n\n"
    "data: first\ndata:  second\ndata\nunknown: x\n\n"
    "event: ü\ndata: ä\n\n"
    "data: last, without its blank line"
)
EVENTS = [
    Event("message_start", b"{}"),
    Event("", b""),
    Event("ping", b"{}"),
    Event("", b"first\n second\n"),
    Event("ü", "ä".encode()),
    Event("", b"last, without its blank line"),
]


def _events(*chunks: bytes) -> list[Event]:
    splitter = Splitter()
    blocks = [block for chunk in chunks for block in splitter.feed(chunk)]
    return [parse_event(block) for block in blocks + splitter.end()]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_line_ends_of_all_kinds_mean_the_same(newline):
    assert _events(STREAM.replace("\n", newline).encode()) == EVENTS


def test_line_ends_may_be_mixed():
    assert _events(b"data: a\r\n\ndata: b\n\r\ndata: c\r\rdata: d\n\rdata: e") == [
        Event("", letter) for letter in (b"a", b"b", b"c", b"d", b"e")
    ]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_a_stream_may_come_byte_by_byte(newline):
    raw = STREAM.replace("\n", newline).encode()
    assert _events(*(raw[i : i + 1] for i in range(len(raw)))) == EVENTS


@given(st.sampled_from(["\n", "\r\n", "\r"]), st.lists(st.integers(0, 250)))
def test_events_do_not_depend_on_how_the_bytes_are_cut(newline, cuts):
    raw = STREAM.replace("\n", newline).encode()
    bounds = [0, *sorted(cuts), len(raw)]
    assert _events(*(raw[a:b] for a, b in pairwise(bounds))) == EVENTS


@given(st.lists(st.text("ab:\r\n", max_size=6).map(str.encode)))
def test_garbage_does_not_depend_on_its_cut_either(chunks):
    assert _events(*chunks) == _events(b"".join(chunks))


def test_an_event_is_there_as_soon_as_its_blank_line_is():
    splitter = Splitter()
    assert splitter.feed(b"data: x\n") == []
    assert splitter.pending
    assert splitter.feed(b"\n") == [b"data: x"]
    assert not splitter.pending
    assert splitter.feed(b"\n") == []
    assert not splitter.pending


@pytest.mark.parametrize("chunk", [1, 7, 64, 1000])
def test_an_event_too_large_is_passed_over_and_not_kept(chunk):
    raw = b"data: a\n\ndata: " + b"x" * 500 + b"\n\ndata: b\n\ndata: " + b"y" * 500
    splitter, blocks = Splitter(largest=64), []
    for at in range(0, len(raw), chunk):
        blocks += splitter.feed(raw[at : at + chunk])
        assert len(splitter._held) <= 64 + 1
    assert blocks + splitter.end() == [b"data: a", b"data: b"]


def test_a_name_that_is_not_utf8_does_no_harm():
    assert parse_event(b"event: \xff\ndata: \xff") == Event("\ufffd", b"\xff")


@pytest.mark.parametrize("rest", [b"", b"data: half"])
def test_events_of_no_interest_are_passed_over_without_being_cut_out(rest):
    splitter = Splitter()
    assert splitter.feed(b"data: a\n\nda") == [b"data: a"]
    assert splitter.skip(splitter.held + b"ta: b\n\ndata: c\n\n" + rest)
    assert splitter.held == rest
    assert splitter.feed(b"\n\ndata: d\n\n")[-1] == b"data: d"


def test_nothing_is_passed_over_that_takes_a_closer_look():
    splitter = Splitter()
    splitter.feed(b"data: a\n\nda")
    assert not splitter.skip(b"data: b\r\n\r\n")
    assert splitter.held == b"da"
