"""Who may connect, and what each may see."""

import http.client
import json
import socket
from collections.abc import Callable

import pytest

from tests.support.fake_provider import Upstream
from tests.support.router import Router
from tests.support.router_process import OPENER, free_ports

SECRET = "secret-of-a-client-for-tests"
LOGIN = "Bearer sk-ant-oat01-fake-login-of-nobody"


def rules(home: Upstream, zai: Upstream) -> str:
    return f"""
providers:
  anthropic: {{url: "{home.url}", auth: client}}
  zai: {{url: "{zai.url}", key: zai-key-for-tests-0001}}
rules:
  - {{match: "*haiku*", to: zai/glm-4.5-air}}
  - {{match: {{client: ann, model: "x"}}, to: zai/anns}}
  - {{match: "*", to: anthropic}}
clients: {{ann: "{SECRET}"}}
"""


def ask(
    port: int,
    method: str = "POST",
    path: str = "/v1/messages",
    model: str = "x",
    host: str = "127.0.0.1",
    **headers: str,
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(host, port, timeout=10)
    try:
        body = json.dumps({"model": model}) if method == "POST" else None
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_a_stranger_to_the_health_page_has_its_connection_closed_as_it_asked(shared):
    for method, path in (("GET", "/health"), ("HEAD", "/")):
        with socket.create_connection(("127.0.0.1", shared.router.ports[0]), 10) as client:
            client.sendall(
                f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
            )
            answer = b"".join(iter(lambda: client.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "headers",
    [{"x-api-key": SECRET}, {"Authorization": f"Bearer {SECRET}"}, {"X-Signalbox-Client": SECRET}],
    ids=["x-api-key", "Bearer", "own header"],
)
def test_a_client_gets_in_with_its_secret_which_goes_no_further(shared, headers):
    status, _ = ask(shared.router.ports[0], **headers)
    assert status == 200
    sent = shared.second.wait_for(1)[0]
    assert sent.json["model"] == "anns"
    assert not any(SECRET in value for _, value in sent.headers)
    assert shared.router.records(1)[-1]["client"] == "ann"
    assert SECRET not in shared.router.log()


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens", "/v1/models", "/elsewhere"])
@pytest.mark.parametrize("headers", [{}, {"x-api-key": "wrong"}, {"Authorization": LOGIN}])
def test_nobody_else_gets_in(shared, path, headers):
    status, body = ask(shared.router.ports[0], path=path, **headers)
    assert status == 401
    assert json.loads(body)["error"]["type"] == "authentication_error"
    assert not shared.upstream.requests


def test_a_large_body_of_nobody_is_not_waited_for(shared):
    with socket.create_connection(("127.0.0.1", shared.router.ports[0]), timeout=5) as client:
        client.sendall(b"POST /elsewhere HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999\r\n\r\n{")
        assert client.recv(100).startswith(b"HTTP/1.1 401 ")


def test_the_callers_own_login_goes_along_beside_the_secret(shared):
    status, _ = ask(
        shared.router.ports[0], model="claude-opus-4-5", Authorization=LOGIN, **{"x-api-key": SECRET}
    )
    assert status == 200
    sent = shared.upstream.wait_for(1)[0]
    assert sent.header("authorization") == LOGIN
    assert sent.header("x-api-key") is None


def test_without_a_login_of_its_own_a_client_cannot_use_the_callers_login(shared):
    status, body = ask(shared.router.ports[0], model="claude-opus-4-5", **{"x-api-key": SECRET})
    assert status == 503
    assert "login" in json.loads(body)["error"]["message"]


def test_health_and_the_warming_requests_need_no_secret(shared):
    port = shared.router.ports[0]
    assert ask(port, "HEAD", "/") == (200, b"")
    assert ask(port, "HEAD", "/api/hello") == (200, b"")
    status, body = ask(port, "GET", "/health")
    assert status == 200
    health = json.loads(body)
    assert health["client_validation"] is True
    assert health["status"] == "healthy"
    assert health["tiers"]["haiku"] == {
        "model": "glm-4.5-air",
        "provider": "zai",
        "provider_set": True,
        "uses_oauth": False,
    }
    assert health["providers"]["zai"]["key_set"] is True
    assert "zai-key-for-tests" not in body.decode()
    assert SECRET not in body.decode()
    assert not shared.upstream.requests


def on_all_addresses(
    start_router: Callable[..., Router], upstream: Upstream, text: str
) -> tuple[Router, int]:
    port = free_ports(1)[0]
    wide = ("--mode", f"reverse:{upstream.url}@0.0.0.0:{port}")
    return start_router(upstream.url, rules=text, options=wide), port


def test_without_clients_a_wildcard_bind_serves_this_machine_only(start_router, upstream, own_address):
    router, port = on_all_addresses(start_router, upstream, "providers: {}\nrules: []\n")
    assert ask(port, "HEAD", "/")[0] == 200
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        ask(port, "HEAD", "/", host=own_address)
    router.wait_log("connection from .* refused: Only this machine may connect")


def test_with_clients_other_machines_get_in_and_see_of_health_only_the_status(
    start_router, upstream, second, own_address
):
    _, port = on_all_addresses(start_router, upstream, rules(upstream, second))
    assert ask(port, host=own_address, **{"x-api-key": SECRET})[0] == 200
    assert ask(port, host=own_address)[0] == 401
    assert json.loads(ask(port, "GET", "/health", host=own_address)[1]) == {"status": "healthy"}
    assert "version" in json.loads(ask(port, "GET", "/health", host=own_address, **{"x-api-key": SECRET})[1])


def test_health_tells_what_keeps_it_from_being_healthy(start_router, upstream):
    text = f"""
providers:
  anthropic: {{url: "{upstream.url}", auth: client}}
  zai: {{url: "{upstream.url}", key: "${{ZAI_API_KEY}}"}}
rules:
  - {{match: "*haiku*", to: [zai/glm, anthropic]}}
"""
    router = start_router(upstream.url, rules=text)
    health = router.health()
    assert health["status"] == "healthy"
    assert health["providers"]["zai"]["available"] is False
    assert health["providers"]["zai"]["reason"] == "ZAI_API_KEY is not set"
    assert health["tiers"]["haiku"]["provider"] == "anthropic"
    assert health["tiers"]["haiku"]["uses_oauth"] is True
    assert health["listeners"][0]["port"] == router.ports[0]
    router.rules(text.replace("[zai/glm, anthropic]", "zai/glm"))
    router.wait_log(r"rules loaded[\s\S]*rules loaded")
    assert router.health()["status"] == "unhealthy"
    with OPENER.open(f"{router.url}/health", timeout=5) as answer:
        assert answer.headers["content-type"] == "application/json"
