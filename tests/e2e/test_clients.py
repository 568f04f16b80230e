"""Who may connect from other machines, and what each may see (more in `test_proxy_stream_clients`)."""

import http.client
import json
from collections.abc import Callable

import pytest

from tests.support.fake_provider import Upstream
from tests.support.router import Router
from tests.support.router_process import free_ports

SECRET = "secret-of-a-client-for-tests"


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
