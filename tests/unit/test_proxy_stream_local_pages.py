"""The router's own pages: who reads them, and that no request for one leaves the router.

Other machines and forward mode are in `tests/e2e/test_local_pages.py`.
"""

from base64 import b64encode

import pytest

from tests.support.playbook import played

SECRET = "secret-of-a-client-for-tests"
PAGES = ("/metrics", "/ui", "/signalbox/sessions/s1")
RULES = """
providers: {anthropic: {url: "http://home.invalid", auth: client}}
rules: [{match: "*", to: anthropic}]
ui: {hosts: [router.lan]}
"""


@pytest.fixture(autouse=True)
def nobody_asked(play):
    yield
    assert play.opening == play.asked == []


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
def test_pages_of_other_origins_and_foreign_names_are_refused(played_router, path, headers, refused):
    for method in ("GET", "HEAD"):
        got = played_router.connect().fetch(f"{method} {path}", **headers)
        assert got.status in ((403,) if refused else (200, 404))
        assert not [name for name in got.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("path", ["/", "/api/hello", "/health", *PAGES])
def test_a_head_is_answered_without_a_body(play, path):
    play.client_sends(f"HEAD {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    answer = play.answer
    assert answer.startswith(b"HTTP/1.1 ")
    assert answer.endswith(b"\r\n\r\n")
    assert answer.count(b"\r\n\r\n") == 1


@pytest.mark.parametrize("path", PAGES)
def test_writes_are_refused_and_go_to_no_provider(played_router, path):
    for method in ("POST", "PUT", "DELETE"):
        play = played_router.connect()
        got = play.fetch(f"{method} {path}", b"x" if method == "POST" else b"")
        assert (got.status, got.headers["allow"]) == (405, "GET, HEAD")
        assert play.opening == []


def test_a_page_is_not_stored_nor_framed_and_loads_nothing_from_elsewhere(play):
    headers = play.fetch("GET /metrics").headers
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert "frame-ancestors 'none'" in headers["content-security-policy"]


def basic(secret: str) -> str:
    return f"Basic {b64encode(f'me:{secret}'.encode()).decode()}"


@pytest.mark.slow
def test_with_clients_a_secret_is_asked_for_from_this_machine_too(tmp_path, caplog):
    with played(tmp_path, f"{RULES}clients: {{ann: {SECRET}}}\n") as router:

        def ask(path: str, **headers: str) -> int:
            play = router.connect()
            got = play.fetch(f"GET {path}", **headers)
            assert play.opening == []
            assert got.status != 401 or got.headers["www-authenticate"].startswith("Basic")
            return got.status

        for path in ("/metrics", "/ui"):
            assert ask(path) == ask(path, Authorization=basic("wrong-secret")) == 401
            assert ask(path, Authorization=basic(SECRET)) == 200
            assert ask(path, Authorization=f"Bearer {SECRET}") == 200
        assert ask("/signalbox/sessions/s1") == 404
    assert SECRET not in caplog.text
