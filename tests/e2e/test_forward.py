"""Without a reverse mode: Anthropic's API is routed, all else is left alone."""

import http.client
import json
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.fake_provider import Upstream
from tests.support.raw_client import LOGIN, Caller
from tests.support.router import Router
from tests.support.router_process import free_ports
from tests.support.tls import certify


def rules(home: str, zai: Upstream) -> str:
    return f"""
providers:
  anthropic: {{url: "{home}", auth: client}}
  zai: {{url: "{zai.url}", key: zai-key-for-tests-0001}}
rules:
  - {{match: "*haiku*", to: zai/glm}}
"""


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


def test_anthropics_host_is_routed_by_the_rules_and_all_else_passes_untouched(start_router, upstream, second):
    """A host's name may be written in any case, but its port counts."""
    router = start_router(rules=rules(f"http://localhost:{upstream.port}", second))
    home, elsewhere = f"http://LOCALHOST:{upstream.port}", f"http://localhost:{second.port}"
    haiku = {"model": "claude-haiku-4-5"}
    answer, _ = through(router, "POST", f"{home}/v1/messages?beta=true", haiku, Authorization=LOGIN)
    assert answer.headers["x-signalbox-provider"] == "zai"
    through(router, "POST", f"{elsewhere}/v1/messages", haiku, Authorization=LOGIN)
    through(router, "GET", f"{elsewhere}/health")
    routed, posted, asked = second.wait_for(3)
    assert (routed.json["model"], routed.header("authorization")) == ("glm", None)
    assert (posted.json, posted.header("authorization")) == (haiku, LOGIN)
    assert asked.path == "/health"
    through(router, "POST", f"{home}/v1/messages", {"model": "claude-opus-4-5"}, Authorization=LOGIN)
    assert upstream.wait_for(1)[0].header("authorization") == LOGIN
    assert router.health()["status"] == "healthy"
    assert len(upstream.requests) == 1


def test_a_request_that_names_the_listener_in_another_way_does_not_go_round(start_router, second):
    router = start_router(rules=rules("http://localhost:1", second))
    (port,) = router.ports
    assert json.loads(through(router, "GET", f"http://LocalHost.:{port}/health")[1])["status"]
    for path in ("/health", "/v1/messages"):  # 127.1 is 127.0.0.1, which only the system's resolver knows
        answer, _ = through(router, "GET", f"http://127.1:{port}{path}")
        assert answer.status == 502


@pytest.mark.parametrize("ahead", [True, False], ids=["at once", "after the tunnel"])
def test_a_request_in_a_tunnel_without_tls_is_routed(start_router, upstream, second, ahead):
    router = start_router(rules=rules(f"http://127.0.0.1:{upstream.port}", second))
    connect = (
        f"CONNECT 127.0.0.1:{upstream.port} HTTP/1.1\r\nHost: 127.0.0.1:{upstream.port}\r\n\r\n".encode()
    )
    with Caller(router) as caller:
        caller.socket.sendall(connect + REQUEST if ahead else connect)
        caller.until(b"\r\n\r\n")
        if not ahead:
            caller.socket.sendall(REQUEST)
        caller.until(b"x-signalbox-provider: zai")
    assert second.wait_for(1)[0].json["model"] == "glm"


def test_other_machines_reach_anthropics_hosts_alone_also_where_all_may_connect(
    start_router, upstream, second, own_address
):
    port = free_ports(1)[0]
    wide = ("--mode", f"regular@0.0.0.0:{port}", "--set", "block_private=false")
    start_router(rules=rules(f"http://127.0.0.1:{upstream.port}", second), options=wide)
    for host, url, status in (
        ("127.0.0.1", f"http://localhost:{second.port}/x", 200),
        (own_address, f"http://localhost:{second.port}/x", 403),
        (own_address, f"http://127.0.0.1:{upstream.port}/v1/models", 200),
    ):
        with closing(http.client.HTTPConnection(host, port, timeout=10)) as connection:
            connection.request("GET", url)
            assert connection.getresponse().status == status, (host, url)


def test_a_clients_secret_and_the_project_are_taken_out_of_every_request(
    start_router, tmp_path, upstream, second
):
    text = rules(f"http://127.0.0.1:{upstream.port}", second) + "clients: {ann: secret-of-a-client}\n"
    router = start_router(rules=text, options=("-w", str(tmp_path / "flows.mitm")))
    secret = {
        "X-Api-Key": "secret-of-a-client",
        "Proxy-Authorization": "Basic YW5uOnNlY3JldC1vZi1hLWNsaWVudA==",
        "X-Signalbox-Project": "/home/ann/shop",
    }
    for url in (
        f"{upstream.url}/v1/messages",
        f"{upstream.url}/v1/elsewhere?key=secret-of-a-client&a=1",
        f"http://localhost:{second.port}/v1/messages",
    ):
        answer, _ = through(router, "POST", url, {"model": "other"}, Authorization=LOGIN, **secret)
        assert answer.status == 200
    received = [*upstream.wait_for(2), *second.wait_for(1)]
    assert through(router, "GET", f"{upstream.url}/elsewhere", Authorization=LOGIN)[0].status == 200
    assert through(router, "POST", f"{upstream.url}/v1/messages", {}, Authorization=LOGIN)[0].status == 401
    assert {one.path for one in received} == {"/v1/messages", "/v1/elsewhere?a=1"}
    for one in received:
        assert one.header("authorization") == LOGIN
        assert one.header("x-api-key") is None
        assert one.header("proxy-authorization") is None
        assert one.header("x-signalbox-project") is None
    router.stop()
    assert b"secret-of-a-client" not in (tmp_path / "flows.mitm").read_bytes()


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


def test_anthropics_host_is_decrypted_and_routed_and_no_other(start_router, second, tls_server, certificate):
    port = tls_server.server_address[1]
    rule_file = rules(f"https://127.0.0.1:{port}", second)
    router = start_router(rules=rule_file, options=("--set", "ssl_insecure=true"))
    with tunnel(router, "127.0.0.1", port, router.confdir / "mitmproxy-ca-cert.pem") as connection:
        connection.sendall(REQUEST)
        assert b"x-signalbox-provider: zai" in connection.recv(4096)
    assert second.wait_for(1)[0].json["model"] == "glm"
    assert not tls_server.heads
    with tunnel(router, "localhost", port, certificate) as connection:
        connection.sendall(REQUEST)
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        assert connection.getpeercert()["serialNumber"] == "07"
    assert LOGIN.encode() in tls_server.heads[0]
