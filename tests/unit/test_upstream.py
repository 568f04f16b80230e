"""The scripted upstream does what tests rely on."""

import gc
import http.client
import socket
import threading
import zlib
from contextlib import ExitStack

import pytest

from tests.support.answers import Answer, compressed, event, json_answer, message_sse, sse, zai_sse
from tests.support.fake_provider import START_CHECK, Upstream


def ask(upstream: Upstream, body: bytes = b'{"model":"m"}') -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", upstream.port, timeout=5)
    try:
        connection.request("POST", "/v1/messages", body, {"X-Odd-Case": "1"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_a_request_is_kept_as_it_came(upstream):
    assert ask(upstream)[0] == 200
    (received,) = upstream.wait_for(1)
    assert (received.method, received.path, received.body) == ("POST", "/v1/messages", b'{"model":"m"}')
    assert ("X-Odd-Case", "1") in received.headers


def test_answers_are_given_in_order_and_the_last_stays(upstream):
    upstream.answer(Answer(429), Answer(200))
    assert [ask(upstream)[0] for _ in range(3)] == [429, 200, 200]


def test_a_connection_serves_several_requests(upstream):
    connection = http.client.HTTPConnection("127.0.0.1", upstream.port, timeout=5)
    for _ in range(2):
        connection.request("GET", "/health")
        connection.getresponse().read()
    connection.close()
    assert [received.connection for received in upstream.wait_for(2)] == [0, 0]


def test_a_check_whether_a_router_has_started_is_none_of_a_scripts_business(upstream):
    upstream.answer(lambda received: json_answer(received.json))
    connection = http.client.HTTPConnection("127.0.0.1", upstream.port, timeout=5)
    connection.request("GET", "/health", headers={START_CHECK: "yes"})
    assert connection.getresponse().status == 503
    connection.close()
    assert upstream.requests == []


def test_a_chunked_request_is_read_to_its_end(upstream):
    connection = http.client.HTTPConnection("127.0.0.1", upstream.port, timeout=5)
    connection.request("POST", "/v1/messages", iter([b'{"model"', b':"m"}']), encode_chunked=True)
    connection.getresponse().read()
    connection.close()
    assert upstream.wait_for(1)[0].body == b'{"model":"m"}'


def test_an_event_of_the_test_holds_the_answer_back(upstream):
    go = threading.Event()
    upstream.answer(sse(event("ping"), go, event("message_stop")))
    with socket.create_connection(("127.0.0.1", upstream.port), timeout=5) as peer:
        peer.sendall(b"GET /v1/messages HTTP/1.1\r\n\r\n")
        before = peer.recv(65536)
        while b"ping" not in before:
            before += peer.recv(65536)
        assert b"message_stop" not in before
        go.set()
        after = b""
        while not after.endswith(b"0\r\n\r\n"):
            after += peer.recv(65536)
    assert b"message_stop" in after


def test_a_peer_that_leaves_in_mid_answer_is_noticed(upstream):
    upstream.answer(sse(event("ping"), threading.Event()))
    with socket.create_connection(("127.0.0.1", upstream.port), timeout=5) as peer:
        peer.sendall(b"GET /v1/messages HTTP/1.1\r\n\r\n")
        peer.recv(1)
        assert upstream.left == []
    assert upstream.wait_left()[0].connection == 0


@pytest.mark.parametrize(
    ("cut", "error"), [("close", http.client.IncompleteRead), ("reset", ConnectionResetError)]
)
def test_an_answer_can_be_cut(upstream, cut, error):
    upstream.answer(sse(event("ping"), cut=cut))
    with pytest.raises(error):
        ask(upstream)


def test_raw_bytes_are_sent_alone(upstream):
    upstream.answer(Answer(framing="raw", chunks=(b"HTTP/1.1 299 Odd\r\ncontent-length: 0\r\n\r\n",)))
    assert ask(upstream) == (299, b"")


def test_what_a_script_raises_is_seen_by_the_test():
    def script(received):
        raise ValueError(received.path)

    with pytest.raises(ValueError, match="/v1/messages"), Upstream() as upstream:  # noqa: PT012  it is raised at the end of the block
        upstream.answer(script)
        with pytest.raises(http.client.RemoteDisconnected):
            ask(upstream)


def test_each_chunk_of_a_compressed_answer_can_be_read_by_itself():
    plain = message_sse()
    first = next(chunk for chunk in compressed(plain, "gzip").chunks if isinstance(chunk, bytes))
    assert zlib.decompressobj(wbits=31).decompress(first) == plain.chunks[0]


def test_zai_reports_usage_at_the_end_alone():
    first, *_, last, _ = zai_sse().chunks
    assert b'"usage":{"input_tokens":0,"output_tokens":0}' in first
    assert b'"cache_read_input_tokens":500' in last


@pytest.mark.slow
def test_connections_that_are_open_at_the_end_are_closed():
    for _ in range(5):
        with ExitStack() as clients, Upstream() as upstream:
            upstream.answer(Answer(200, (), (b"x" * 5_000_000,), "length"))
            address = ("127.0.0.1", upstream.port)
            reads_nothing = clients.enter_context(socket.create_connection(address))
            reads_nothing.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            upstream.wait_for(1)
            clients.enter_context(socket.create_connection(address))
    gc.collect()  # an open socket would warn here
