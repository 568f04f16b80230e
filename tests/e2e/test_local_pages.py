"""The router's own pages, from other machines and by a proxy (more in `test_proxy_stream_local_pages`)."""

import http.client
from base64 import b64encode
from typing import Any

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


def rules(home, up) -> str:
    return f"""
providers: {{anthropic: {{url: "{home.url}", auth: client}}}}
rules: [{{match: "*", to: anthropic}}]
ui: {{hosts: [router.lan]}}
"""


def test_other_machines_read_with_a_secret_or_where_all_is_open(start_router, upstream, own_address):
    text = rules(upstream, upstream)
    is_open = text.replace("[router.lan]", "[router.lan], open: true")
    for settings, status in ((text, 403), (text + CLIENTS, 401), (is_open + CLIENTS, 200)):
        port = free_ports(1)[0]
        wide = ("--mode", f"reverse:{upstream.url}@0.0.0.0:{port}", "--set", "block_private=false")
        start_router(upstream.url, rules=settings, options=wide)
        assert ask(port, "/metrics", host=own_address).status == status
        assert ask(port, "/signalbox/sessions/s1", host=own_address).status == 403
        assert ask(port, "/metrics", host=own_address, Host="evil.example").status == 403
        if CLIENTS in settings:
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
