"""Without a reverse mode: Anthropic's API is routed, all else is left alone."""

import http.client
import json
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.fake_provider import Upstream
from tests.support.router import Router
from tests.support.tls import certify

LOGIN = "Bearer sk-ant-oat01-fake-login-of-nobody"


def rules(home: str, zai: Upstream) -> str:
    return f"""
providers:
  anthropic: {{url: "{home}", auth: client}}
  zai: {{url: "{zai.url}", key: zai-key-for-tests-0001}}
rules:
  - {{match: "*haiku*", to: zai/glm}}
"""


@pytest.fixture
def router(start_router: Callable[..., Router], upstream: Upstream, second: Upstream) -> Router:
    return start_router(rules=rules(f"http://127.0.0.1:{upstream.port}", second))


def through(
    router: Router, method: str, url: str, body: object = None, **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    """A request to `url` by way of the proxy."""
    connection = http.client.HTTPConnection("127.0.0.1", router.ports[0], timeout=10)
    connection.request(method, url, None if body is None else json.dumps(body), headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer, content


def test_the_messages_paths_of_anthropics_host_are_routed_by_the_rules(router, upstream, second):
    url = f"{upstream.url}/v1/messages?beta=true"
    answer, _ = through(router, "POST", url, {"model": "claude-haiku-4-5"}, Authorization=LOGIN)
    assert answer.headers["x-signalbox-provider"] == "zai"
    assert second.wait_for(1)[0].json["model"] == "glm"
    assert second.requests[0].header("authorization") is None


def test_a_hosts_name_may_be_written_in_any_case_but_its_port_counts(start_router, upstream, second):
    text = rules(f"http://localhost:{upstream.port}", second)
    router = start_router(rules=text)
    ask = {"model": "claude-haiku-4-5"}
    through(router, "POST", f"http://LOCALHOST:{upstream.port}/v1/messages", ask, Authorization=LOGIN)
    assert second.wait_for(1)[0].json["model"] == "glm"
    through(router, "POST", f"http://localhost:{second.port}/v1/messages", ask, Authorization=LOGIN)
    assert second.wait_for(2)[1].json == ask


def test_no_matching_rule_means_the_host_that_was_asked(router, upstream):
    through(router, "POST", f"{upstream.url}/v1/messages", {"model": "claude-opus-4-5"}, Authorization=LOGIN)
    assert upstream.wait_for(1)[0].header("authorization") == LOGIN


def test_other_paths_and_hosts_pass_untouched(router, second):
    body = {"model": "claude-haiku-4-5"}
    url = f"http://localhost:{second.port}"
    through(router, "POST", f"{url}/v1/messages", body, Authorization=LOGIN)
    through(router, "GET", f"{url}/health", None)
    posted, asked = second.wait_for(2)
    assert posted.json == body
    assert posted.header("authorization") == LOGIN
    assert asked.path == "/health"


def test_a_clients_secret_is_taken_out_of_every_request(start_router, tmp_path, upstream, second):
    text = rules(f"http://127.0.0.1:{upstream.port}", second) + "clients: {ann: secret-of-a-client}\n"
    router = start_router(rules=text, options=("-w", str(tmp_path / "flows.mitm")))
    secret = {
        "X-Api-Key": "secret-of-a-client",
        "Proxy-Authorization": "Basic YW5uOnNlY3JldC1vZi1hLWNsaWVudA==",
    }
    for url in (
        f"{upstream.url}/v1/messages",
        f"{upstream.url}/v1/elsewhere?key=secret-of-a-client&a=1",
        f"http://localhost:{second.port}/v1/messages",
    ):
        answer, _ = through(router, "POST", url, {"model": "other"}, Authorization=LOGIN, **secret)
        assert answer.status == 200
    received = [*upstream.wait_for(2), *second.wait_for(1)]
    assert {one.path for one in received} == {"/v1/messages", "/v1/elsewhere?a=1"}
    for one in received:
        assert one.header("authorization") == LOGIN
        assert one.header("x-api-key") is None
        assert one.header("proxy-authorization") is None
    router.stop()
    assert b"secret-of-a-client" not in (tmp_path / "flows.mitm").read_bytes()


def test_paths_that_are_not_routed_ask_for_no_clients_secret(start_router, upstream, second):
    text = rules(f"http://127.0.0.1:{upstream.port}", second) + "clients: {ann: secret-of-a-client}\n"
    router = start_router(rules=text)
    assert through(router, "GET", f"{upstream.url}/elsewhere", Authorization=LOGIN)[0].status == 200
    assert through(router, "POST", f"{upstream.url}/v1/messages", {}, Authorization=LOGIN)[0].status == 401


def test_the_listeners_own_address_has_the_health_page(router, upstream):
    assert router.health()["status"] == "healthy"
    assert not upstream.requests


# TLS: who is decrypted


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and certificate of a server on loopback, signed by itself."""
    return certify(tmp_path_factory.mktemp("certificate") / "server.pem")


class TlsServer(socketserver.ThreadingTCPServer):
    """Answers each request with its own head."""

    daemon_threads = True
    heads: list[bytes]
    context: ssl.SSLContext


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        server: TlsServer = self.server
        answer = json.dumps({"model": "m", "usage": {}}).encode()
        with server.context.wrap_socket(self.request, server_side=True) as connection:
            server.heads.append(connection.recv(65536))
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer))


@pytest.fixture
def tls_server(certificate: Path) -> Iterator[TlsServer]:
    with TlsServer(("127.0.0.1", 0), Echo) as server:
        server.heads = []
        server.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        server.context.load_cert_chain(certificate)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def tunnel(router: Router, host: str, port: int, trusted: Path) -> ssl.SSLSocket:
    """A TLS connection to the server by way of the proxy; fails unless `trusted` signed who answers."""
    plain = socket.create_connection(("127.0.0.1", router.ports[0]), timeout=10)
    plain.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    assert plain.recv(1000).startswith(b"HTTP/1.1 200")
    context = ssl.create_default_context(cafile=trusted)
    return context.wrap_socket(plain, server_hostname=host)


ASK = b'{"model":"claude-haiku-4-5"}'
REQUEST = (
    b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nAuthorization: %s\r\nContent-Length: %d\r\n\r\n%s"
    % (LOGIN.encode(), len(ASK), ASK)
)


def test_a_foreign_host_is_not_even_decrypted(router, tls_server, certificate):
    with tunnel(router, "localhost", tls_server.server_address[1], certificate) as connection:
        connection.sendall(REQUEST)
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        assert connection.getpeercert()["serialNumber"] == "07"
    assert LOGIN.encode() in tls_server.heads[0]


def test_anthropics_host_is_decrypted_and_routed(start_router, second, tls_server, certificate):
    home = f"https://127.0.0.1:{tls_server.server_address[1]}"
    router = start_router(rules=rules(home, second), options=("--set", "ssl_insecure=true"))
    authority = router.confdir / "mitmproxy-ca-cert.pem"
    with tunnel(router, "127.0.0.1", tls_server.server_address[1], authority) as connection:
        connection.sendall(REQUEST)
        assert b"x-signalbox-provider: zai" in connection.recv(4096)
    assert second.wait_for(1)[0].json["model"] == "glm"
    assert not tls_server.heads
