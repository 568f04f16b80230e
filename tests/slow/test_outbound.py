"""Providers are asked through the proxy that the rules or the environment name."""

import http.client
import json
import socket
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.answers import json_answer, message_sse, sse
from tests.support.fake_provider import Upstream
from tests.support.http_proxy import HttpProxy
from tests.support.raw_client import LOGIN, Caller
from tests.support.router_process import RouterFiles, wait_until
from tests.support.tls import TlsUpstream, certify, trusting

pytestmark = pytest.mark.slow

USER, PASSWORD = "ann", "fake-password-of-the-proxy"
BASIC = f"Basic {b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"
OPTIONS = ("--set", "ssl_insecure=true")
KEY = "zai-key-for-tests-0001"

type Start = Callable[..., RouterFiles]


@pytest.fixture
def proxy() -> Iterator[HttpProxy]:
    with HttpProxy() as one:
        yield one


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[TlsUpstream]:
    with TlsUpstream(certify(tmp_path / "server.pem")) as one:
        yield one


def rules(**providers: tuple[str, str]) -> str:
    """Each provider by its URL and what else is written of it; `NAME-x` goes to provider NAME, then to the
    last one."""
    last = list(providers)[-1]
    lines = ["providers:"]
    lines += [f'  {name}: {{url: "{url}", key: {KEY}{more}}}' for name, (url, more) in providers.items()]
    lines += ["rules:"]
    lines += [f'  - {{match: "{name}-*", to: [{name}, {last}]}}' for name in providers if name != last]
    return "\n".join([*lines, f'  - {{match: "*", to: {last}}}', ""])


def ask(router: RouterFiles, model: str, *, stream: bool = True):
    with Caller(router, "s1") as caller:
        caller.ask(model, stream=stream)
        return caller.answer()


def get(router: RouterFiles, path: str) -> tuple[int, Any]:
    """Status and JSON of a page."""
    connection = http.client.HTTPConnection("127.0.0.1", router.ports[0], timeout=10)
    connection.request("GET", path, headers={"Authorization": LOGIN})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, json.loads(body) if body else None


@pytest.mark.parametrize("plain", ["", "1"], ids=["quick", "plain"])
@pytest.mark.parametrize("kind", ["http", "https"])
def test_a_provider_is_asked_through_a_tunnel_of_its_proxy(
    start_router: Start, upstream: Upstream, secure: TlsUpstream, proxy: HttpProxy, kind: str, plain: str
) -> None:
    """Also where the router's shortcuts through mitmproxy are off."""
    provider = upstream if kind == "http" else secure
    provider.answer(message_sse("glm-4.7"))
    text = rules(far=(provider.url, f', proxy: "{proxy.url}"'))
    environment = {"SIGNALBOX_PLAIN": plain}
    router = start_router(upstream.url, rules=text, options=OPTIONS, environment=environment)
    answer = ask(router, "far-1")
    assert (answer.status, answer.headers["x-signalbox-attempts"]) == (200, "far:200")
    assert proxy.tunnels == [f"127.0.0.1:{provider.port}"]
    (sent,) = provider.requests
    assert sent.header("x-api-key") == KEY
    assert sent.path == "/v1/messages"
    assert sent.header("proxy-authorization") is None


def test_the_proxy_gets_its_credentials_and_nobody_else_sees_them(
    start_router: Start, upstream: Upstream, tmp_path: Path
) -> None:
    flows = tmp_path / "flows.mitm"
    with HttpProxy(authorization=BASIC) as proxy:
        text = rules(far=(upstream.url, f', proxy: "http://{USER}:{PASSWORD}@{proxy.address}"'))
        text += "log: {level: debug}\n"
        router = start_router(upstream.url, rules=text, options=("-w", str(flows)))
        assert ask(router, "far-1").status == 200
        assert proxy.asked[0].authorization == BASIC
        health = json.dumps(router.health())
    router.stop()
    (sent,) = upstream.requests
    said = [health, router.log(), str(sent.headers), flows.read_bytes().decode("latin-1")]
    files = [file for file in router.state.rglob("*") if file.is_file()]
    said += [file.read_bytes().decode("latin-1") for file in files]
    for one in said:
        assert PASSWORD not in one
        assert BASIC.partition(" ")[2] not in one


@pytest.mark.parametrize(
    ("breaks", "reason"),
    [
        ("down", "could not be reached: Connection refused"),
        ("asks", "asks for credentials (407)"),
        ("other", "asks for other credentials (407)"),
        ("refuses", "refused to connect (403)"),
    ],
)
def test_a_proxy_that_does_not_serve_is_a_failure_to_connect_with_its_reason(
    start_router: Start, upstream: Upstream, second: Upstream, breaks: str, reason: str
) -> None:
    with HttpProxy(authorization=BASIC if breaks in ("asks", "other") else None) as proxy:
        credentials = f"{USER}:wrong-fake-password@" if breaks == "other" else ""
        through = f', proxy: "http://{credentials}{proxy.address}"'
        proxy.status = 403
        text = rules(far=(upstream.url, through), near=(second.url, ""))
        router = start_router(upstream.url, rules=text)
        if breaks == "down":
            proxy.leave()
        answer = ask(router, "far-1")
        assert (answer.status, answer.headers["x-signalbox-attempts"]) == (200, "far:connect near:200")
        assert f"the proxy {proxy.address} {reason}" in router.log()
        assert "wrong-fake-password" not in router.log()
    assert upstream.requests == []


def test_the_client_is_told_why_the_proxy_does_not_serve(start_router: Start, upstream: Upstream) -> None:
    with HttpProxy(authorization=BASIC) as proxy:
        text = rules(far=(upstream.url, f', proxy: "{proxy.url}"'))
        answer = ask(start_router(upstream.url, rules=text), "far-1", stream=False)
    assert answer.status == 502
    message = json.loads(answer.body)["error"]["message"]
    assert f"the proxy {proxy.address} asks for credentials (407)" in message


def test_a_proxy_that_says_nothing_is_waited_for_no_longer_than_a_connection(
    start_router: Start, upstream: Upstream, second: Upstream, proxy: HttpProxy
) -> None:
    proxy.status = None
    more = f', proxy: "{proxy.url}", timeout: {{connect: 300ms}}'
    text = rules(far=(upstream.url, more), near=(second.url, ""))
    answer = ask(start_router(upstream.url, rules=text), "far-1")
    assert answer.headers["x-signalbox-attempts"] == "far:timeout near:200"


def test_connections_through_a_proxy_are_kept_and_shared_with_nobody_else(
    start_router: Start, upstream: Upstream, proxy: HttpProxy
) -> None:
    """By provider, by proxy, and by its credentials; also where there are more than five of them."""
    names = [f"p{i}" for i in range(7)]
    through = f', proxy: "http://USER:{PASSWORD}@{proxy.address}"'
    providers = {name: (upstream.url, through.replace("USER", name)) for name in names}
    text = rules(**providers, near=(upstream.url, ""))
    router = start_router(upstream.url, rules=text)
    with Caller(router, "s1") as caller:
        for name in [*names, "near", *names]:
            caller.ask(f"{name}-1", stream=False)
            answer = caller.answer()
            assert answer.headers["x-signalbox-attempts"] == f"{name}:200"
    assert len(proxy.tunnels) == len(names)
    assert len({request.connection for request in upstream.requests}) == len(names) + 1


def test_a_stale_connection_through_a_proxy_is_not_used_again(
    start_router: Start, upstream: Upstream, proxy: HttpProxy
) -> None:
    router = start_router(upstream.url, rules=rules(far=(upstream.url, f', proxy: "{proxy.url}"')))
    with Caller(router, "s1") as caller:
        for _ in range(2):
            caller.ask("far-1", stream=False)
            assert caller.answer().status == 200
        assert len(proxy.tunnels) == 1
        router.app.keepalive_expiry = 0.0
        caller.ask("far-1", stream=False)
        assert caller.answer().status == 200
        assert len(proxy.tunnels) == 2
        upstream.wait_left(1)


def test_a_client_that_leaves_ends_the_tunnel_at_once(
    start_router: Start, upstream: Upstream, proxy: HttpProxy, never: threading.Event
) -> None:
    upstream.answer(sse(never))
    router = start_router(upstream.url, rules=rules(far=(upstream.url, f', proxy: "{proxy.url}"')))
    with Caller(router, "s1") as caller:
        caller.ask("far-1")
        upstream.wait_for(1)
    upstream.wait_left(1, timeout=2)


def test_the_connection_through_the_proxy_is_opened_early_too(
    start_router: Start, upstream: Upstream, proxy: HttpProxy
) -> None:
    router = start_router(upstream.url, rules=rules(far=(upstream.url, f', proxy: "{proxy.url}"')))
    body = json.dumps({"model": "far-1", "messages": [{"role": "user", "content": "x" * 5000}]}).encode()
    ask(router, "far-1", stream=False)
    with Caller(router, "s1") as caller:
        caller.socket.sendall(caller.head(len(body)) + body[:2000])
        wait_until(lambda: len(proxy.tunnels) == 2, 5, lambda: "a tunnel before the body is in")
        caller.socket.sendall(body[2000:])
        assert caller.answer().status == 200
    assert len(proxy.tunnels) == 2


# the environment


def test_the_environments_proxy_is_for_all_that_no_proxy_does_not_name(
    start_router: Start, upstream: Upstream, second: Upstream, proxy: HttpProxy
) -> None:
    """Of providers, and of what no rule decides about."""
    environment = {"HTTP_PROXY": proxy.url, "NO_PROXY": f"example.com,127.0.0.1:{second.port}"}
    text = rules(far=(upstream.url, ""), own=(upstream.url, ", proxy: none"), near=(second.url, ""))
    router = start_router(upstream.url, rules=text, environment=environment)
    for name in ("own", "near"):
        assert ask(router, f"{name}-1").status == 200
    assert proxy.tunnels == []
    assert ask(router, "far-1").status == 200
    assert proxy.tunnels == [f"127.0.0.1:{upstream.port}"]
    assert get(router, "/v1/elsewhere")[0] == 200
    assert proxy.tunnels == [f"127.0.0.1:{upstream.port}"] * 2


def test_a_tunnel_that_is_not_decrypted_goes_through_the_environments_proxy(
    start_router: Start, upstream: Upstream, secure: TlsUpstream, proxy: HttpProxy
) -> None:
    """Of a forward proxy, for hosts that are not Anthropic's."""
    router = start_router(rules=rules(far=(upstream.url, "")), environment={"HTTPS_PROXY": proxy.url})
    with socket.create_connection(("127.0.0.1", router.ports[0]), timeout=10) as plain:
        where = f"127.0.0.1:{secure.port}"
        plain.sendall(f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\n\r\n".encode())
        assert plain.recv(1000).startswith(b"HTTP/1.1 200")
        with trusting().wrap_socket(plain, server_hostname="localhost") as tunnel:
            assert b"server for tests" in (tunnel.getpeercert(binary_form=True) or b"")
            tunnel.sendall(b"GET /elsewhere HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert tunnel.recv(1000).startswith(b"HTTP/1.1 200")
    assert proxy.tunnels == [where]
    assert [one.path for one in secure.requests] == ["/elsewhere"]


def test_the_routers_own_requests_take_the_same_way(
    start_router: Start, upstream: Upstream, second: Upstream
) -> None:
    listed = {"data": [{"id": "glm-4.7", "display_name": "GLM"}], "has_more": False}
    second.answer(json_answer(listed))
    with HttpProxy(authorization=BASIC) as proxy:
        through = f'models: list, proxy: "http://{USER}:{PASSWORD}@{proxy.address}"'
        text = rules(far=(second.url, f", {through}"))
        router = start_router(upstream.url, rules=text)
        models = [one["id"] for one in get(router, "/v1/models")[1]["data"]]
        assert "claude-router-glm-4.7" in models
        assert [one.authorization for one in proxy.asked] == [BASIC]


def test_a_proxy_that_is_this_router_is_reported_as_such(start_router: Start, upstream: Upstream) -> None:
    router = start_router(upstream.url, rules="")
    loop = f', proxy: "http://127.0.0.1:{router.ports[0]}"'
    router.rules(rules(far=(upstream.url, loop)))
    router.wait_log("rules loaded: 1 provider")
    answer = ask(router, "far-1", stream=False)
    assert "is this router itself" in json.loads(answer.body)["error"]["message"]
