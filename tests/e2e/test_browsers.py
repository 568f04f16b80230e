"""Web pages of other sites, over real sockets (more of it in `test_proxy_stream_browsers`)."""

import json
import socket

from tests.support.answers import json_answer
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


def send(caller: Caller, line: str = "POST /v1/messages", **headers: str) -> Whole:
    """A request as a page sends it: a simple one, with text and no credential."""
    body = json.dumps({"model": "up-x", "messages": []}) if line.startswith("POST") else ""
    fields = {"Host": "127.0.0.1", "Content-Type": "text/plain", "Content-Length": str(len(body)), **headers}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    caller.socket.sendall("\r\n".join([f"{line} HTTP/1.1", *lines, "", body]).encode())
    return caller.answer()


def post(router: Router, host: str, port: int, **headers: str) -> int:
    caller = Caller.__new__(Caller)
    caller.seen = b""
    with socket.create_connection((host, port), timeout=10) as caller.socket:
        return send(caller, **headers).status


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
