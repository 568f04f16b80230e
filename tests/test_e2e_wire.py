"""HTTP/1 as providers and strangers may speak it: odd statuses, old versions, framing, heads without end."""

import json
import socket
import threading
from contextlib import suppress

import pytest

from tests import chat
from tests.answers import Answer, json_answer, message_json, message_sse
from tests.callers import Caller, both
from tests.running import Router
from tests.upstream import Upstream

ROUTER = Router

STREAM = (("Content-Type", "text/event-stream"),)
SECRET = "sk-ant-api03-fake-secret-of-nobody-0123456789"


def rules(home: Upstream, up: Upstream) -> str:
    key = "key: up-key-for-tests-00001, circuit: {open_after: 100000}"
    return f"""
providers:
  anthropic: {{url: "{home.url}", auth: client, circuit: {{open_after: 100000}}}}
  up: {{url: "{up.url}", {key}}}
  chat: {{url: "{up.url}/v1", api: openai, {key}}}
rules:
  - {{match: "home-then-up", to: [anthropic, up]}}
  - {{match: "last", to: up}}
  - {{match: "last-renamed", to: up/glm}}
  - {{match: "last-chat", to: chat/gpt}}
  - {{match: "up", to: [up, anthropic]}}
  - {{match: "chat", to: [chat/gpt, anthropic]}}
  - {{match: "*", to: anthropic}}
"""


def raw(head: str, body: bytes = b"", *, close: bool = False) -> Answer:
    chunks = (head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body,)
    return Answer(framing="raw", chunks=chunks, cut="close" if close else None)


def attempts(caller: Caller, model: str, *, stream: bool = False) -> str:
    caller.ask(model, stream)
    answer = caller.answer()
    assert answer.status == 200
    return answer.headers["x-signalbox-attempts"]


def passed_on(caller: Caller, *lines: str, body: bytes = b"", path: str = "/v1/elsewhere") -> None:
    """Send a request that no rule is about."""
    head = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", *lines, "", ""]
    caller.socket.sendall("\r\n".join(head).encode() + body)


# statuses that are none of an answer


@pytest.mark.parametrize("status", [101, 0, 99, 7, -5])
@pytest.mark.parametrize("model", ["up", "chat"])
def test_a_status_that_is_none_of_an_answer_fails_over(router, up, caller, model, status):
    up.answer(raw(f"HTTP/1.1 {status} Odd\nConnection: Upgrade\nUpgrade: odd"))
    for _ in range(2):
        assert attempts(caller, model) == f"{model}:{status} anthropic:200"
    up.wait_left(2)
    assert len(up.requests) == 2


@pytest.mark.parametrize("status", [101, 0, 99])
@pytest.mark.parametrize("model", ["last", "last-chat"])
def test_the_last_target_with_such_a_status_gives_502(up, caller, model, status):
    up.answer(raw(f"HTTP/1.1 {status} Odd\nConnection: Upgrade\nUpgrade: odd"))
    caller.ask(model)
    answer = caller.answer()
    assert answer.status == 502
    assert f"answered with status {status}" in json.loads(answer.body)["error"]["message"]


def test_what_a_client_sends_after_a_switch_that_nobody_asked_for_goes_where_the_rules_say(home, up, caller):
    up.answer(raw("HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: odd"))
    caller.ask("last")
    assert caller.answer().status == 502
    caller.ask("claude-opus-4-5", False)
    assert caller.answer().status == 200
    assert len(home.requests) == 1
    assert len(up.requests) == 1


def test_a_switch_that_a_client_did_not_ask_for_is_none_on_other_paths_either(home, caller):
    home.answer(raw("HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: odd"), json_answer({}))
    passed_on(caller, "Content-Length: 0")
    answer = caller.answer()
    assert (answer.status, json.loads(answer.body)["type"]) == (502, "error")
    passed_on(caller, "Content-Length: 0")
    assert caller.answer().status == 200


def test_a_client_may_ask_for_another_protocol_on_other_paths(home, caller):
    home.answer(raw("HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: odd", b"hello"))
    passed_on(caller, "Content-Length: 0", "Connection: Upgrade", "Upgrade: odd")
    caller.until(b"hello")
    assert caller.seen.startswith(b"HTTP/1.1 101 ")


def test_hundreds_of_early_hints_in_one_read_are_skipped(router, up, caller):
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 500
    answer = message_json("glm")
    up.answer(Answer(framing="raw", chunks=(hints + answer.head() + answer.body,)))
    for _ in range(2):
        assert attempts(caller, "up") == "up:200"
    assert len({request.connection for request in up.requests}) == 1


# HTTP/1.0


def old(answer: Answer, framing: str) -> Answer:
    """The same answer of a server that speaks HTTP/1.0."""
    size = f"\nContent-Length: {len(answer.body)}" if framing == "length" else ""
    kind = dict(answer.headers)["Content-Type"]
    return raw(f"HTTP/1.0 200 OK\nContent-Type: {kind}{size}", answer.body, close=True)


@both
@pytest.mark.parametrize("framing", ["length", "closing"])
@pytest.mark.parametrize("model", ["up", "chat", "last", "last-renamed", "last-chat", "claude-opus-4-5"])
def test_a_provider_may_speak_http_1_0(home, up, caller, model, framing, stream):
    is_chat = "chat" in model
    said = (message_sse(model) if stream else message_json(model), chat.completion())[is_chat and not stream]
    if is_chat and stream:
        said = chat.stream(chat.text_stream())
    (home if model.startswith("claude") else up).answer(old(said, framing))
    for _ in range(2):
        caller.ask(model, stream)
        caller.until(b"\r\n\r\n")
        assert caller.seen.startswith(b"HTTP/1.1 200 ")
        is_framed = (
            b"transfer-encoding: chunked" in caller.seen.lower() or b"content-length" in caller.seen.lower()
        )
        assert is_framed
        answer = caller.answer()
        assert answer.headers["x-signalbox-attempts"].endswith(":200")
        assert " " not in answer.headers["x-signalbox-attempts"]
        assert b"Hello" in answer.body
        assert (b"message_stop" in answer.body) == stream


# framing


@pytest.mark.parametrize("model", ["last", "last-renamed", "claude-opus-4-5"])
@pytest.mark.parametrize("head", ["204 No Content\nContent-Length: 0", "304 Not Modified\nContent-Length: 0"])
def test_an_answer_that_has_no_body_is_framed_as_such(home, up, caller, model, head):
    (home if model.startswith("claude") else up).answer(
        raw(f"HTTP/1.1 {head}\nContent-Type: application/json"), message_json("glm")
    )
    caller.ask(model, False)
    caller.until(b"\r\n\r\n")
    head, rest = caller.seen.split(b"\r\n\r\n", 1)
    assert b"transfer-encoding" not in head.lower()
    assert rest == b""
    caller.seen = b""
    caller.ask(model, False)
    assert caller.answer().status == 200


@pytest.mark.parametrize("head", ["304 Not Modified\nTransfer-Encoding: chunked", "204 No Content"])
def test_an_answer_without_a_body_passes_other_paths_so_that_the_next_one_is_whole(home, caller, head):
    home.answer(raw(f"HTTP/1.1 {head}"), json_answer({"next": True}))
    passed_on(caller, "Content-Length: 0")
    caller.until(b"\r\n\r\n")
    assert caller.seen.endswith(b"\r\n\r\n")
    assert caller.seen.count(b"\r\n\r\n") == 1
    assert b"transfer-encoding" not in caller.seen.lower()
    caller.seen = b""
    passed_on(caller, "Content-Length: 0")
    assert caller.answer().body == b'{"next":true}'


@pytest.mark.parametrize("model", ["up", "last-renamed", "chat"])
def test_the_trailers_of_an_answer_are_dropped(up, caller, model):
    plain = chat.stream(chat.text_stream()) if model == "chat" else message_sse("glm")
    chunks = b"".join(plain.frame(chunk) for chunk in plain.chunks if isinstance(chunk, bytes))
    up.answer(Answer(framing="raw", chunks=(plain.head() + chunks + b"0\r\nX-Checksum: 1\r\n\r\n",)))
    for _ in range(2):
        caller.ask(model)
        assert b"message_stop" in caller.answer().body
    assert len({request.connection for request in up.requests}) == 1


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/elsewhere"])
def test_the_trailers_of_a_request_are_dropped(home, caller, path):
    body = message = b'{"model": "claude-opus-4-5", "messages": []}'
    framed = b"%x\r\n%s\r\n0\r\nX-Checksum: 1\r\n\r\n" % (len(body), message)
    for _ in range(2):
        passed_on(caller, "Transfer-Encoding: chunked", body=framed, path=path)
        assert caller.answer().status == 200
    assert [request.body for request in home.requests] == [body, body]


# heads without end


def endless(first: bytes, stop: threading.Event, more: bytes = b"x" * 65536) -> Answer:
    """An answer that goes on after `first` until the test is over."""
    return Answer(framing="raw", chunks=(first, *[more] * 64, stop))


@pytest.mark.parametrize("model", ["up", "chat"])
@pytest.mark.parametrize("first", [b"HTTP/1.1 200 OK\r\nX-Endless: ", b"x", b"HTTP/1.1 103 Early\r\nX: "])
def test_a_head_without_end_is_a_failed_attempt(up, caller, never, model, first):
    up.answer(endless(first, never))
    assert attempts(caller, model) == f"{model}:connect anthropic:200"


@pytest.mark.parametrize("tail", [b"1;", b"0\r\nX-Endless: "], ids=["chunk header", "trailers"])
def test_a_chunk_header_or_trailers_without_end_cut_the_answer(up, caller, never, tail):
    answer = message_sse("glm")
    begun = b"".join(answer.frame(chunk) for chunk in answer.chunks[:5] if isinstance(chunk, bytes))
    up.answer(endless(answer.head() + begun + tail, never))
    caller.ask("last")
    assert not caller.until_closed().endswith(b"0\r\n\r\n")


def send_for_ever(caller: Caller, first: bytes, limit: int = 64_000_000) -> bytes:
    """What the router says until it closes the connection, and nothing but more of the same is sent."""
    caller.socket.settimeout(10)
    caller.socket.sendall(first)
    sender = threading.Thread(target=_send, args=(caller.socket, limit), daemon=True)
    sender.start()
    seen = b""
    with suppress(ConnectionResetError):
        while data := caller.socket.recv(65536):
            seen += data
    caller.socket.close()
    sender.join(5)
    return seen


def _send(to: socket.socket, limit: int) -> None:
    with suppress(OSError):
        for _ in range(limit // 65536):
            to.sendall(b"x" * 65536)


@pytest.mark.parametrize("first", [b"x", b"POST /v1/messages HTTP/1.1\r\nX-Endless: "])
def test_a_clients_head_without_end_is_answered_with_431(caller, first):
    head, _, body = send_for_ever(caller, first).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 431 ")
    assert json.loads(body)["error"]["type"] == "invalid_request_error"


def test_a_head_just_below_the_limit_is_read(home, caller):
    passed_on(caller, "Content-Length: 0", f"X-Long: {'x' * 250_000}")
    assert caller.answer().status == 200
    assert len(home.requests[0].header("x-long") or "") == 250_000


def test_a_clients_chunk_header_without_end_ends_its_connection(home, caller):
    first = b"POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n1;"
    assert send_for_ever(caller, first) == b""
    assert not home.requests


def test_what_a_client_sends_ahead_of_an_answer_is_bounded(home, caller, never):
    home.answer(Answer(framing="raw", wait=never))
    caller.ask("claude-opus-4-5")
    home.wait_for(1)
    assert send_for_ever(caller, b"POST ") == b""
    home.wait_left()


# what mitmproxy refuses

MALFORMED = {
    "two lengths": ("POST /v1/messages HTTP/1.1", "Content-Length: 2", "Transfer-Encoding: chunked"),
    "a name that is none": ("POST /v1/messages HTTP/1.1", "Bad Name: x", "Content-Length: 2"),
    "a length that is none": ("POST /v1/messages HTTP/1.1", "Content-Length: two"),
    "a coding that is none": ("POST /v1/messages HTTP/1.1", "Transfer-Encoding: gzip"),
    "a line without colon": ("POST /v1/messages HTTP/1.1", "nothing", "Content-Length: 2"),
    "no request line": ("POST", "Content-Length: 2"),
    "a tunnel": ("CONNECT example.com:443 HTTP/1.1", "Content-Length: 2"),
}


@pytest.mark.parametrize("lines", MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_valid_request_gets_400_in_anthropics_shape(home, up, caller, lines):
    line, *fields = lines
    head = [line, "Host: 127.0.0.1", f"X-Api-Key: {SECRET}", *fields, "", ""]
    caller.socket.sendall("\r\n".join(head).encode() + b"{}")
    answer, _, body = caller.until_closed().partition(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["error"]["type"] == "invalid_request_error"
    assert not home.requests
    assert not up.requests


@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_what_is_no_valid_request_is_saved_with_masked_secrets(start_router, upstream, mode):
    upstreams = [upstream.url] if mode == "reverse" else []
    router: Router = start_router(*upstreams, rules="", options=("-w", "flows.mitm"))
    for line, *fields in MALFORMED.values():
        with Caller(router) as caller:
            head = [
                line,
                "Host: 127.0.0.1",
                f"X-Api-Key: {SECRET}",
                f"Proxy-Authorization: Bearer {SECRET}",
                *fields,
            ]
            caller.socket.sendall("\r\n".join([*head, "", ""]).encode() + b"{}")
            caller.socket.shutdown(socket.SHUT_WR)
            caller.until_closed()
    assert router.stop() == 0
    written = (router.folder / "flows.mitm").read_bytes()
    assert written
    assert SECRET.encode() not in written
    assert SECRET not in router.log()
