"""HTTP/1 as strangers may speak it, and what mitmdump saves of it."""

import socket

import pytest

from tests.support.raw_client import Caller
from tests.support.router_process import Router

pytestmark = pytest.mark.slow

SECRET = "sk-ant-api03-fake-secret-of-nobody-0123456789"

MALFORMED = {
    "two lengths": ("POST /v1/messages HTTP/1.1", "Content-Length: 2", "Transfer-Encoding: chunked"),
    "a name that is none": ("POST /v1/messages HTTP/1.1", "Bad Name: x", "Content-Length: 2"),
    "a length that is none": ("POST /v1/messages HTTP/1.1", "Content-Length: two"),
    "a coding that is none": ("POST /v1/messages HTTP/1.1", "Transfer-Encoding: gzip"),
    "a line without colon": ("POST /v1/messages HTTP/1.1", "nothing", "Content-Length: 2"),
    "no request line": ("POST", "Content-Length: 2"),
    "a tunnel": ("CONNECT example.com:443 HTTP/1.1", "Content-Length: 2"),
}


@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_what_is_no_valid_request_is_saved_with_masked_secrets(tmp_path, upstream, mode):
    upstreams = [upstream.url] if mode == "reverse" else []
    with Router(tmp_path, *upstreams, rules="", options=("-w", "flows.mitm")) as router:
        for line, *fields in MALFORMED.values():
            with Caller(router) as caller:
                secrets = (f"X-Api-Key: {SECRET}", f"Proxy-Authorization: Bearer {SECRET}")
                head = [line, "Host: 127.0.0.1", *secrets, *fields]
                caller.socket.sendall("\r\n".join([*head, "", ""]).encode() + b"{}")
                caller.socket.shutdown(socket.SHUT_WR)
                caller.until_closed()
        assert router.stop() == 0
        log = router.log()
    written = (tmp_path / "flows.mitm").read_bytes()
    assert written
    assert SECRET.encode() not in written
    assert SECRET not in log
