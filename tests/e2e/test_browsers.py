"""Web pages of other sites: they may neither use the router nor read what it answers."""

import json
import socket

import pytest

from tests.support.answers import error_json, json_answer
from tests.support.fake_provider import Upstream
from tests.support.raw_client import Caller, Whole
from tests.support.router import Router
from tests.support.router_process import free_ports

EVIL = "https://evil.example"


def rules(home: Upstream, up: Upstream) -> str:
    return f"""
providers:
  anthropic: {{url: "{home.url}", auth: client}}
  up: {{url: "{up.url}", key: up-key-for-tests-0001, circuit: {{open_after: 1000}}}}
rules:
  - {{match: "up*", to: up}}
  - {{match: "home*", to: anthropic}}
ui: {{hosts: [router.lan]}}
"""


@pytest.fixture
def none_asked(home, up):
    """At the end of the test nobody was asked for anything."""
    yield
    assert not home.requests
    assert not up.requests


def send(caller: Caller, line: str = "POST /v1/messages", **headers: str) -> Whole:
    """A request as a page sends it: a simple one, with text and no credential."""
    body = json.dumps({"model": "up-x", "messages": []}) if line.startswith("POST") else ""
    fields = {"Host": "127.0.0.1", "Content-Type": "text/plain", "Content-Length": str(len(body)), **headers}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    caller.socket.sendall("\r\n".join([f"{line} HTTP/1.1", *lines, "", body]).encode())
    return caller.answer()


@pytest.mark.parametrize("line", ["POST /v1/messages", "POST /v1/other", "GET /v1/models", "GET /health"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": EVIL},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:3000"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site", "Origin": "http://127.0.0.1"},
        {"Host": "evil.example"},
        {"Host": "evil.example:8082", "Origin": "http://evil.example:8082", "Sec_Fetch_Site": "same-origin"},
    ],
    ids=lambda headers: " ".join(f"{name} {value}" for name, value in headers.items()),
)
def test_a_page_of_another_site_is_refused_before_anybody_is_asked(caller, none_asked, line, headers):
    answer = send(caller, line, **headers)
    assert answer.status == 403
    assert json.loads(answer.body)["error"]["type"] == "permission_error"
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_a_refusal_does_not_wait_for_the_body(router, none_asked):
    with socket.create_connection(("127.0.0.1", router.ports[0]), timeout=5) as page:
        page.sendall(b"POST /v1/messages HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 999999\r\n\r\n{")
        assert page.recv(100).startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/other", "/health", "/"])
def test_a_preflight_is_answered_here(caller, router, none_asked, path):
    answer = send(caller, f"OPTIONS {path}", Origin=EVIL, Access_Control_Request_Method="POST")
    assert answer.status == 403
    assert not [name for name in answer.headers if name.startswith("access-control")]
    router.wait_log(f"refused: OPTIONS {path}: ")


def test_a_refusal_names_the_key_that_allows_a_host(caller, router, none_asked):
    answer = send(caller, Host="host.docker.internal:8082")
    assert "ui.hosts" in json.loads(answer.body)["error"]["message"]
    router.wait_log("refused: POST /v1/messages: Host host.docker.internal")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Host": "localhost:8082"},
        {"Host": "127.0.0.2:1"},
        {"Host": "[::1]:8082"},
        {"Host": "router.lan"},
        {"Host": "router.lan:8082", "Origin": "https://router.lan"},
        {"Host": "localhost:8082", "Origin": "http://localhost:8082", "Sec_Fetch_Site": "same-origin"},
        {"sec_fetch_mode": "cors"},
    ],
    ids=lambda headers: " ".join(f"{name} {value}" for name, value in headers.items()),
)
def test_programs_and_pages_of_the_router_itself_are_answered(caller, up, headers):
    assert send(caller, **headers).status == 200
    up.wait_for(1)
    assert send(caller, "GET /health", **headers).status == 200


def test_no_header_for_pages_of_other_origins_leaves(caller, home, up):
    allow = (("Access-Control-Allow-Origin", "*"), ("Access-Control-Expose-Headers", "*"), ("X-Kept", "1"))
    error = error_json(400, "invalid_request_error", headers=allow)
    for model, upstream in (("up-x", up), ("home-x", home), ("unrouted", home)):
        upstream.answer(json_answer({"type": "message", "content": []}, headers=allow), error)
        for status in (200, 400):
            caller.ask(model, stream=False)
            answer = caller.answer()
            assert answer.status == status
            assert answer.headers["x-kept"] == "1"
            assert not [name for name in answer.headers if name.startswith("access-control")]
    home.answer(json_answer({"data": []}, headers=allow))
    assert not [name for name in send(caller, "GET /v1/models").headers if name.startswith("access-control")]


def test_cookies_pass_from_anthropic_itself_and_from_no_other(caller, home, up):
    cookies = (("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("Set-Cookie2", "c=3"))
    for model, upstream in (("up-x", up), ("home-x", home), ("unrouted", home)):
        upstream.answer(
            json_answer({"type": "message", "content": [], "usage": {}}, headers=cookies),
            error_json(400, "invalid_request_error", headers=cookies),
        )
        for _ in range(2):
            caller.ask(model, stream=False)
            assert ("set-cookie" in caller.answer().headers) is (upstream is home)


# who else is judged, and by what


def post(router: Router, host: str, port: int, **headers: str) -> int:
    caller = Caller.__new__(Caller)
    caller.seen = b""
    with socket.create_connection((host, port), timeout=10) as caller.socket:
        return send(caller, **headers).status


def test_with_clients_only_the_routers_own_pages_are_judged(start_router, upstream, second):
    secret = "secret-of-a-client"
    router = start_router(upstream.url, rules=rules(upstream, second) + f"clients: {{ann: {secret}}}\n")
    with Caller(router) as caller:
        assert send(caller, Origin=EVIL).status == 401
    with Caller(router) as caller:
        assert send(caller, Origin=EVIL, Host="any.example", X_Api_Key=secret).status == 200
    with Caller(router) as caller:
        caller.socket.sendall(b"HEAD / HTTP/1.1\r\nHost: router.example\r\n\r\n")
        caller.until(b"HTTP/1.1 200 ")
    for headers in ({"Origin": EVIL}, {"Host": "evil.example"}, {"Sec_Fetch_Site": "cross-site"}):
        with Caller(router) as caller:
            assert send(caller, "GET /health", X_Api_Key=secret, **headers).status == 403


def test_other_machines_that_the_user_lets_in_may_use_any_name_but_no_page(
    start_router, upstream, second, own_address
):
    port = free_ports(1)[0]
    wide = ("--mode", f"reverse:{upstream.url}@0.0.0.0:{port}", "--set", "block_private=false")
    router = start_router(upstream.url, rules=rules(upstream, second), options=wide)
    for host in (f"{own_address}:{port}", "box.example", f"localhost:{port}"):
        assert post(router, own_address, port, Host=host) == 200
    own = f"http://{own_address}:{port}"
    assert post(router, own_address, port, Host=f"{own_address}:{port}", Origin=own) == 200
    assert post(router, own_address, port, Host=f"{own_address}:{port}", Origin=EVIL) == 403
    rebound = {"Host": "evil.example", "Origin": "http://evil.example"}
    assert post(router, own_address, port, **rebound) == 403
    assert post(router, "127.0.0.1", port, Host="box.example") == 403


def test_a_forward_proxy_judges_what_it_routes_by_origin_alone(start_router, upstream, second):
    router = start_router(rules=rules(upstream, second))
    there = f"127.0.0.1:{upstream.port}"
    line = f"POST http://{there}/v1/messages"
    site = {"Host": there, "Sec_Fetch_Site": "cross-site"}
    for headers, status in (({}, 200), ({"Origin": EVIL}, 403), ({"Origin": f"http://{there}"}, 200)):
        with Caller(router) as caller:
            assert send(caller, line, **site, **headers).status == status
    upstream.answer(json_answer({}, headers=[("Access-Control-Allow-Origin", "*")]))
    with Caller(router) as caller:
        passed = send(caller, f"POST http://{there}/other", **site, Origin=EVIL)
        assert (passed.status, passed.headers["access-control-allow-origin"]) == (200, "*")
    with Caller(router) as caller:
        own = {"Host": f"127.0.0.1:{router.ports[0]}", "Sec_Fetch_Site": "cross-site"}
        assert send(caller, "GET /health", **own).status == 403
