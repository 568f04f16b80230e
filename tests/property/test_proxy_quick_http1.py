"""The quick connections of HTTP/1 tell what those with mitmproxy's readers tell, for any cut."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy.connection import Client, ConnectionState, Server
from mitmproxy.http import Headers, Message, Request
from mitmproxy.options import Options
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import (
    Http1Client,
    Http1Connection,
    Http1Server,
    ReceiveHttp,
    RequestEndOfMessage,
    RequestHeaders,
    ResponseEndOfMessage,
    ResponseHeaders,
)

from signalbox.proxy import http1, quick_http1
from signalbox.proxy.fields import QuickHeaders

NAMES = st.sampled_from(
    [
        "host",
        "Content-Type",
        "x-api-key",
        "X_under",
        "content-length",
        "Content-Length",
        "transfer-encoding",
        "connection",
        "bad name",
        "",
        "käse",
        "cookie",
    ]
)
VALUES = st.sampled_from(
    [
        "",
        "a",
        "5",
        "05",
        "-1",
        "5, 5",
        "0",
        "chunked",
        "Chunked",
        "gzip, chunked",
        "identity",
        "close",
        "keep-alive",
        " padded \t",
        "a\tb",
        "a\x0b",
        "käse",
        "9" * 30,
        "a:b",
    ]
)
LINES = st.sampled_from(["\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r\n "])
REQUEST_LINES = st.sampled_from(
    [
        "POST /v1/messages?beta=true HTTP/1.1",
        "GET / HTTP/1.1",
        "HEAD / HTTP/1.1",
        "POST  / HTTP/1.1",
        "POST / HTTP/1.0",
        "GET http://a.invalid/x HTTP/1.1",
        "CONNECT a.invalid:443 HTTP/1.1",
        "POST /",
        "",
        "OPTIONS * HTTP/1.1",
        "post / HTTP/1.1",
        "POST /a b HTTP/1.1",
        "POST /\tx HTTP/1.1",
    ]
)
STATUS_LINES = st.sampled_from(
    [
        "HTTP/1.1 200 OK",
        "HTTP/1.1 200",
        "HTTP/1.1 200 ",
        "HTTP/1.1 204 No Content",
        "HTTP/1.1 529 Over loaded",
        "HTTP/1.1  200 OK",
        "HTTP/1.0 200 OK",
        "HTTP/1.1 103 Early Hints",
        "HTTP/1.1 99 x",
        "HTTP/2 200",
        "x",
        "HTTP/1.1 200 OK ",
        "HTTP/1.1 200  OK",
        "HTTP/1.1 304 Not Modified",
    ]
)
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=4)


@st.composite
def heads(draw: st.DrawFn, lines: st.SearchStrategy[str]) -> bytes:
    """Mostly usual ones."""
    end = draw(st.sampled_from(["\r\n\r\n"] * 4 + ["\n\n", "\r\n\n", "\n\r\n"]))
    parts = [draw(lines)]
    parts += [f"{name}:{draw(st.sampled_from([' ', '', '  ']))}{value}" for name, value in draw(FIELDS)]
    joined = parts[0] + "".join(draw(LINES) + part for part in parts[1:])
    return (joined + end).encode()


CHUNKS = st.lists(
    st.one_of(
        st.binary(min_size=1, max_size=30).map(lambda data: b"%x\r\n%b\r\n" % (len(data), data)),
        st.sampled_from([b"3;ext=1\r\nabc\r\n", b"003\r\nabc\r\n", b"3 \r\nabc\r\n", b"A\r\n0123456789\r\n"]),
        st.sampled_from(
            [b"3\r\nabcX\r\n", b"3\r\nabc\rX", b"x\r\n", b"3\nabc\r\n", b"-1\r\n", b"\r\n", b"3\r\n"]
        ),
    ),
    max_size=6,
).map(b"".join)
BODIES = st.one_of(
    st.binary(max_size=12),
    st.tuples(
        CHUNKS, st.sampled_from([b"0\r\n\r\n", b"0\r\nx: y\r\n\r\n", b"00\r\n\r\n", b"", b"0\r\n"])
    ).map(b"".join),
)
FRAMED = st.sampled_from([b"transfer-encoding: chunked\r\n\r\n", b"content-length: 10\r\n\r\n", b"\r\n"])


def streams(lines: st.SearchStrategy[str], usual: bytes) -> st.SearchStrategy[bytes]:
    """A message, and perhaps what follows it."""
    framed = st.tuples(st.just(usual), FRAMED, BODIES).map(b"".join)
    return st.one_of(
        framed, st.tuples(heads(lines), BODIES).map(b"".join), st.tuples(framed, framed).map(b"".join)
    )


def cut(data: bytes, at: list[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(data) + 1) for place in at), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(bounds) if end > start]


OPTIONS = Options()
OPTIONS.add_option("proxy_debug", bool, False, "")


def context() -> Context:
    client = Client(
        peername=("127.0.0.1", 1), sockname=("127.0.0.1", 2), timestamp_start=0, state=ConnectionState.OPEN
    )
    made = Context(client, OPTIONS)
    made.server = Server(address=("upstream.invalid", 80))
    made.server.state = ConnectionState.OPEN
    return made


def message(made: Message) -> dict[str, Any]:
    state = dict(made.data.get_state())
    del state["timestamp_start"]
    return state


def told(
    connection: Http1Connection, pieces: list[bytes], *, closes: bool, first: list[Any] = ()
) -> list[Any]:  # type: ignore[assignment]
    """What comes of these reads, with the pieces of a body put together."""
    made: list[Any] = []
    happens: list[events.Event] = [events.Start(), *first]
    happens += [events.DataReceived(connection.conn, piece) for piece in pieces]
    if closes:
        happens.append(events.ConnectionClosed(connection.conn))
    try:
        for event in happens:
            if isinstance(event, events.ConnectionClosed):
                connection.conn.state = ConnectionState.CLOSED
            for command in connection.handle_event(event):
                note(made, command)
                if isinstance(command, commands.CloseConnection):
                    return made  # nothing is read of it any more
            if isinstance(event, events.Start):
                connection.state = connection.read_headers
    except AssertionError as fault:
        made.append(f"assertion: {fault}")
    return made


def note(made: list[Any], command: commands.Command) -> None:
    if not isinstance(command, ReceiveHttp):
        made.append((type(command).__name__, getattr(command, "data", getattr(command, "message", None))))
        return
    event = command.event
    if isinstance(event, RequestHeaders):
        made.append(("head", message(event.request), event.end_stream))
    elif isinstance(event, ResponseHeaders):
        made.append(("head", message(event.response), event.end_stream))
    elif (data := getattr(event, "data", None)) is not None:
        if made and made[-1][0] == "data":
            made[-1] = ("data", made[-1][1] + data)
        else:
            made.append(("data", data))
    else:
        made.append((type(event).__name__, getattr(event, "message", None)))


def server(adopt: Any) -> Http1Connection:
    made = Http1Server(context())
    adopt(made)
    return made


def client(adopt: Any) -> Http1Connection:
    made = Http1Client(context())
    adopt(made)
    return made


CUTS = st.lists(st.integers(0, 400), max_size=6)


@given(streams(REQUEST_LINES, b"POST /v1/messages HTTP/1.1\r\nHost: a\r\n"), CUTS, st.booleans())
def test_a_request_is_read_as_by_mitmproxy_however_it_is_cut(data, cuts, closes):
    usual = told(server(http1.adopt), cut(data, cuts), closes=closes)
    assert told(server(quick_http1.adopt), cut(data, cuts), closes=closes) == usual


@given(
    streams(STATUS_LINES, b"HTTP/1.1 200 OK\r\nServer: a\r\n"),
    CUTS,
    st.booleans(),
    st.sampled_from(["POST", "HEAD"]),
)
def test_an_answer_is_read_as_by_mitmproxy_however_it_is_cut(data, cuts, closes, method):
    request = Request.make(method, "http://upstream.invalid/v1/messages", b"")
    asked = [RequestHeaders(1, request, end_stream=True), RequestEndOfMessage(1)]
    usual = told(client(http1.adopt), cut(data, cuts), closes=closes, first=asked)
    assert told(client(quick_http1.adopt), cut(data, cuts), closes=closes, first=asked) == usual


@given(st.lists(st.tuples(NAMES, VALUES), max_size=5), NAMES, VALUES, st.lists(VALUES, max_size=3))
def test_headers_are_looked_up_and_changed_as_mitmproxys_are(pairs, name, value, values):
    fields = [(key.encode(), said.encode()) for key, said in pairs]
    ours, theirs = QuickHeaders.read(fields), Headers(fields)

    def seen(headers: Headers) -> list[Any]:
        return [headers.get(name), name in headers, headers.get_all(name), headers.get(name.encode(), "-")]

    assert seen(ours) == seen(theirs)
    assert ours == theirs
    assert ours.is_sound
    for headers in (ours, theirs):
        headers[name] = value
    assert not ours.is_sound
    assert seen(ours) == seen(theirs)
    assert (bytes(ours), list(ours)) == (bytes(theirs), list(theirs))
    assert [headers.pop(name) for headers in (ours, theirs)] == [value] * 2
    assert ours.fields == theirs.fields
    with pytest.raises(KeyError):
        ours[name]
    for headers in (ours, theirs):
        headers.fields = tuple(fields)
        headers.set_all(name, values)
    assert ours.fields == theirs.fields


def test_the_end_of_an_answer_frees_the_connection():
    connection = client(quick_http1.adopt)
    request = Request.make("POST", "http://upstream.invalid/", b"", {"content-length": "0"})
    told(
        connection,
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"],
        closes=False,
        first=[RequestHeaders(1, request, end_stream=True), RequestEndOfMessage(1)],
    )
    assert connection.stream_id is None
    assert not any(isinstance(event, ResponseEndOfMessage) for event in connection._paused_event_queue)
