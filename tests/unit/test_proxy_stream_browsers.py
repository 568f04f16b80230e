"""Web pages of other sites: they may neither use the router nor read what it answers.

Other listeners, other machines and forward mode are in `tests/e2e/test_browsers.py`.
"""

import json
import logging

import pytest

from tests.support.answers import error_json, json_answer
from tests.support.playbook import Playbook, Provider
from tests.support.played_wire import Got

RULES = """
providers:
  anthropic: {url: "http://home.invalid", auth: client}
  up: {url: "http://up.invalid", key: up-key-for-tests-0001, circuit: {open_after: 1000}}
rules:
  - {match: "up*", to: up}
  - {match: "home*", to: anthropic}
ui: {hosts: [router.lan]}
"""
EVIL = "https://evil.example"


@pytest.fixture
def upstream(played_router) -> Provider:
    """Of the listener: gets what no rule matches."""
    return played_router.provider("upstream")


def send(play: Playbook, line: str = "POST /v1/messages", **headers: str) -> Got:
    """A request as a page sends it: a simple one, with text and no credential."""
    body = json.dumps({"model": "up-x", "messages": []}) if line.startswith("POST") else ""
    fields = {"Host": "127.0.0.1", "Content-Type": "text/plain", "Content-Length": str(len(body)), **headers}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    play.hears_anew()
    play.client_sends("\r\n".join([f"{line} HTTP/1.1", *lines, "", body]).encode())
    return play.got


def of_origins(got: Got) -> list[str]:
    return [name for name in got.headers if name.startswith("access-control")]


def ids(headers: dict[str, str]) -> str:
    return " ".join(f"{name} {value}" for name, value in headers.items())


@pytest.mark.parametrize("line", ["POST /v1/messages", "POST /v1/other", "GET /v1/models", "GET /health"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": EVIL},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:3000"},
        {"Origin": "http://router.lan:5000"},
        {"Host": "router.lan:8082", "Origin": "http://router.lan:5000"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site", "Origin": "http://127.0.0.1"},
        {"Host": "evil.example"},
        {"Host": "evil.example:8082", "Origin": "http://evil.example:8082", "Sec_Fetch_Site": "same-origin"},
    ],
    ids=ids,
)
def test_a_page_of_another_site_is_refused_before_anybody_is_asked(play, line, headers):
    got = send(play, line, **headers)
    assert (got.status, got.error["type"]) == (403, "permission_error")
    assert not of_origins(got)
    assert not play.opening


def test_a_refusal_does_not_wait_for_the_body(play):
    play.client_sends(b"POST /v1/messages HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 999999\r\n\r\n{")
    assert play.got.status == 403
    assert not play.opening


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/other", "/health", "/"])
def test_a_preflight_is_answered_here(play, caplog, path):
    caplog.set_level(logging.INFO, "signalbox")
    got = send(play, f"OPTIONS {path}", Origin=EVIL, Access_Control_Request_Method="POST")
    assert got.status == 403
    assert not of_origins(got)
    assert not play.opening
    assert f"refused: OPTIONS {path}: " in caplog.text


def test_a_refusal_names_the_key_that_allows_a_host(play, caplog):
    caplog.set_level(logging.INFO, "signalbox")
    assert "ui.hosts" in send(play, Host="host.docker.internal:8082").error["message"]
    assert "refused: POST /v1/messages: Host host.docker.internal" in caplog.text


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Host": "localhost:8082"},
        {"Host": "127.0.0.2:1"},
        {"Host": "[::1]:8082"},
        {"Host": "router.lan"},
        {"Host": "router.lan:8082", "Origin": "https://router.lan"},
        {"Host": "router.lan:8082", "Origin": "http://router.lan:8082"},
        {"Host": "127.0.0.1", "Origin": "https://router.lan:443"},
        {"Host": "localhost:8082", "Origin": "http://localhost:8082", "Sec_Fetch_Site": "same-origin"},
        {"sec_fetch_mode": "cors"},
    ],
    ids=ids,
)
def test_programs_and_pages_of_the_router_itself_are_answered(play, up, headers):
    assert send(play, **headers).status == 200
    assert len(up.requests) == 1
    assert send(play, "GET /health", **headers).status == 200


def test_no_header_for_pages_of_other_origins_leaves(play, home, up, upstream):
    allow = (("Access-Control-Allow-Origin", "*"), ("Access-Control-Expose-Headers", "*"), ("X-Kept", "1"))
    error = error_json(400, "invalid_request_error", headers=allow)
    for model, provider in (("up-x", up), ("home-x", home), ("unrouted", upstream)):
        provider.answer(json_answer({"type": "message", "content": []}, headers=allow), error)
        for status in (200, 400):
            got = play.ask(model)
            assert (got.status, got.headers["x-kept"]) == (status, "1")
            assert not of_origins(got)
    upstream.answer(json_answer({"data": []}, headers=allow))
    assert not of_origins(send(play, "GET /v1/models"))


def test_cookies_pass_from_anthropic_itself_and_from_no_other(play, home, up, upstream):
    cookies = (("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("Set-Cookie2", "c=3"))
    for model, provider in (("up-x", up), ("home-x", home), ("unrouted", upstream)):
        provider.answer(
            json_answer({"type": "message", "content": [], "usage": {}}, headers=cookies),
            error_json(400, "invalid_request_error", headers=cookies),
        )
        for _ in range(2):
            assert ("set-cookie" in play.ask(model).headers) is (provider is not up)
