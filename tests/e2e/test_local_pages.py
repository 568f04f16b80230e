"""The router's own pages over real sockets: who reads them, and that no request for one leaves the router."""

import http.client
from base64 import b64encode
from typing import Any

import pytest

from tests.support.router_process import free_ports

SECRET = "secret-of-a-client-for-tests"
CLIENTS = f"clients: {{ann: {SECRET}}}\n"
PAGES = ("/metrics", "/ui", "/signalbox/sessions/s1")


class Answer:
    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.body = answer.status, answer.headers, answer.read()


def ask(port: int, path: str, method: str = "GET", host: str = "127.0.0.1", **headers: str) -> Answer:
    connection = http.client.HTTPConnection(host, port, timeout=10)
    try:
        fields: dict[str, Any] = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, b"x" if method == "POST" else None, fields)
        return Answer(connection.getresponse())
    finally:
        connection.close()


def basic(secret: str) -> str:
    return f"Basic {b64encode(f'me:{secret}'.encode()).decode()}"


@pytest.fixture
def none_asked(home, up):
    yield
    assert not home.requests
    assert not up.requests


def rules(home, up) -> str:
    return f"""
providers: {{anthropic: {{url: "{home.url}", auth: client}}}}
rules: [{{match: "*", to: anthropic}}]
ui: {{hosts: [router.lan]}}
"""


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ({}, False),
        ({"Host": "router.lan:8082"}, False),
        ({"Host": "evil.example"}, True),
        ({"Origin": "https://evil.example"}, True),
        ({"Sec_Fetch_Site": "cross-site"}, True),
        ({"Sec_Fetch_Site": "same-site"}, True),
    ],
)
def test_pages_of_other_origins_and_foreign_names_are_refused(router, none_asked, path, headers, refused):
    for method in ("GET", "HEAD"):
        answer = ask(router.ports[0], path, method, **headers)
        assert (answer.status == 403) is refused
        assert not [name for name in answer.headers if name.lower().startswith("access-control-")]


@pytest.mark.parametrize("path", PAGES)
def test_writes_are_refused_and_go_to_no_provider(router, none_asked, path):
    for method in ("POST", "PUT", "DELETE"):
        answer = ask(router.ports[0], path, method)
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


def test_a_page_is_not_stored_nor_framed_and_loads_nothing_from_elsewhere(router, none_asked):
    headers = ask(router.ports[0], "/metrics").headers
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert "frame-ancestors 'none'" in headers["content-security-policy"]


def test_with_clients_a_secret_is_asked_for_from_this_machine_too(start_router, upstream):
    router = start_router(upstream.url, rules=rules(upstream, upstream) + CLIENTS)
    port = router.ports[0]
    for path in ("/metrics", "/ui"):
        refused = ask(port, path)
        assert (refused.status, refused.headers["www-authenticate"][:5]) == (401, "Basic")
        assert ask(port, path, Authorization=basic("wrong-secret")).status == 401
        assert ask(port, path, Authorization=basic(SECRET)).status != 401
        assert ask(port, path, Authorization=f"Bearer {SECRET}").status != 401
    assert ask(port, "/signalbox/sessions/s1").status == 404
    assert not upstream.requests
    assert SECRET not in router.log()


@pytest.mark.parametrize(("more", "status"), [("", 403), (CLIENTS, 401), (CLIENTS + "OPEN", 200)])
def test_other_machines_read_with_a_secret_or_where_all_is_open(
    start_router, upstream, own_address, more, status
):
    port = free_ports(1)[0]
    wide = ("--mode", f"reverse:{upstream.url}@0.0.0.0:{port}", "--set", "block_private=false")
    text = rules(upstream, upstream) + more.removesuffix("OPEN")
    if more.endswith("OPEN"):
        text = text.replace("[router.lan]", "[router.lan], open: true")
    start_router(upstream.url, rules=text, options=wide)
    assert ask(port, "/metrics", host=own_address).status == status
    assert ask(port, "/signalbox/sessions/s1", host=own_address).status == 403
    assert ask(port, "/metrics", host=own_address, Host="evil.example").status == 403
    if more:
        assert ask(port, "/metrics", host=own_address, Authorization=basic(SECRET)).status == 200
    assert not upstream.requests


def test_a_forward_proxy_shows_them_where_a_request_names_its_own_address(start_router, upstream):
    router = start_router(rules=rules(upstream, upstream))
    port = router.ports[0]
    for asked in ("", f"http://127.0.0.1:{port}"):  # as to any server, and as to a proxy
        assert [ask(port, f"{asked}{path}").status for path in PAGES] == [200, 200, 404]
    elsewhere = f"http://127.0.0.1:{upstream.port}/metrics"
    assert ask(port, elsewhere).headers["content-type"] != "text/plain; version=0.0.4; charset=utf-8"
    assert [one.path for one in upstream.requests] == ["/metrics"]
