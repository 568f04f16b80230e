"""HTTP/1 as strangers may speak it over real sockets (more of it in `test_proxy_stream_http1`)."""

import json
import socket
import threading
from contextlib import closing, suppress
from http.client import HTTPConnection

import pytest

from tests.support.answers import Answer, message_json, message_sse
from tests.support.fake_provider import Upstream
from tests.support.raw_client import LOGIN, Caller, both

SECRET = "sk-ant-api03-fake-secret-of-nobody-0123456789"


def rules(home: Upstream, up: Upstream) -> str:
    return f"""
providers:
  anthropic: {{url: "{home.url}", auth: client}}
  up: {{url: "{up.url}", key: up-key-for-tests-00001}}
rules:
  - {{match: "renamed", to: up/glm}}
  - {{match: "*", to: anthropic}}
"""


def test_a_client_that_writes_before_it_reads_gets_to_see_the_refusal(router, home):
    for path in ("/v1/messages", "/v1/messages/count_tokens"):
        with closing(HTTPConnection("127.0.0.1", router.ports[0], timeout=10)) as connection:
            connection.request("POST", path, b"x" * 40_000_000, {"Authorization": LOGIN})
            answer = connection.getresponse()
            assert (answer.status, json.loads(answer.read())["error"]["type"]) == (413, "request_too_large")
    assert not home.requests


# heads without end


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


def test_a_clients_head_without_end_is_answered_with_431(router):
    for first in (b"x", b"POST /v1/messages HTTP/1.1\r\nX-Endless: "):
        with Caller(router) as caller:
            head, _, body = send_for_ever(caller, first).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 431 ")
        assert json.loads(body)["error"]["type"] == "invalid_request_error"


@both
@pytest.mark.parametrize("model", ["claude-opus-4-5", "renamed"], ids=["own login", "another provider"])
def test_requests_sent_ahead_of_an_answer_are_answered_one_after_the_other(
    router, home, up, caller, model, stream
):
    told = [f"answer {number}" for number in range(4)]
    for provider in (home, up):
        provider.answer(*(message_sse(texts=[text]) if stream else message_json(text=text) for text in told))
    body = json.dumps({"model": model, "stream": stream, "messages": []}).encode()
    one = caller.head(len(body)) + body
    caller.socket.sendall(one * 3 + one[:-10])
    for text in told[:3]:
        answer = caller.answer()
        assert (answer.status, text.encode() in answer.body) == (200, True)
    caller.socket.sendall(one[-10:])
    assert told[3].encode() in caller.answer().body
    assert [one["status"] for one in router.records(4)] == ["success"] * 4


def test_what_a_client_sends_ahead_of_an_answer_is_bounded(home, caller, never):
    home.answer(Answer(framing="raw", wait=never))
    caller.ask("claude-opus-4-5")
    home.wait_for(1)
    assert send_for_ever(caller, b"POST ") == b""
    home.wait_left()
