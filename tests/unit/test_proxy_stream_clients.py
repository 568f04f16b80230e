"""Who may use the router, and what each may see of its health page.

Other machines are in `tests/e2e/test_clients.py`.
"""

import json

import pytest

from tests.support.playbook import Playbook, Provider, played
from tests.support.played_wire import Got, raw_request

SECRET = "secret-of-a-client-for-tests"
OTHER = "secret-of-another-client"
LOGIN = "Bearer sk-ant-oat01-fake-login-of-nobody"
RULES = f"""
providers:
  anthropic: {{url: "http://home.invalid", auth: client}}
  zai: {{url: "http://zai.invalid", key: zai-key-for-tests-0001}}
rules:
  - {{match: "*haiku*", to: zai/glm-4.5-air}}
  - {{match: {{client: ann, model: "x"}}, to: zai/anns}}
  - {{match: "*", to: anthropic}}
clients: {{ann: "{SECRET}", bob: "{OTHER}"}}
"""


@pytest.fixture
def upstream(played_router) -> Provider:
    return played_router.provider("upstream")


def ask(play: Playbook, path: str = "/v1/messages", model: str = "x", **headers: str) -> Got:
    return play.fetch(f"POST {path}", json.dumps({"model": model}).encode(), **headers)


@pytest.mark.parametrize(
    "headers",
    [{"X_Api_Key": SECRET}, {"Authorization": f"Bearer {SECRET}"}, {"X_Signalbox_Client": SECRET}],
    ids=["x-api-key", "Bearer", "own header"],
)
def test_a_client_gets_in_with_its_secret_which_goes_no_further(play, zai, caplog, headers):
    assert ask(play, X_Claude_Code_Session_Id=play.session, **headers).status == 200
    (sent,) = zai.requests
    assert sent.json["model"] == "anns"
    assert not any(SECRET in value for value in sent.headers.values())
    assert play.records(1)[-1]["client"] == "ann"
    assert SECRET not in caplog.text


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens", "/v1/models", "/elsewhere"])
@pytest.mark.parametrize("headers", [{}, {"X_Api_Key": "wrong"}, {"Authorization": LOGIN}])
def test_nobody_else_gets_in(play, path, headers):
    got = ask(play, path, **headers)
    assert (got.status, got.error["type"]) == (401, "authentication_error")
    assert play.opening == []


def test_a_large_body_of_nobody_is_not_waited_for(play):
    play.client_sends(raw_request("POST /elsewhere", b"{", Content_Length="99999999"))
    assert play.got.status == 401


def test_the_callers_own_login_goes_along_beside_the_secret(play, home):
    assert ask(play, model="claude-opus-4-5", Authorization=LOGIN, X_Api_Key=SECRET).status == 200
    (sent,) = home.requests
    assert (sent.header("authorization"), sent.header("x-api-key")) == (LOGIN, None)


def test_two_clients_secrets_go_no_further(play, home):
    secrets = {"X_Api_Key": SECRET, "X_Signalbox_Client": OTHER}
    assert ask(play, model="claude-opus-4-5", Authorization=LOGIN, **secrets).status == 200
    (sent,) = home.requests
    assert not any(one in value for value in sent.headers.values() for one in (SECRET, OTHER))
    assert (sent.header("x-signalbox-client"), sent.header("authorization")) == (None, LOGIN)


def test_without_a_login_of_its_own_a_client_cannot_use_the_callers_login(play):
    got = ask(play, model="claude-opus-4-5", X_Api_Key=SECRET)
    assert got.status == 503
    assert "login" in got.error["message"]


def test_health_and_the_warming_requests_need_no_secret(play):
    for path in ("/", "/api/hello"):
        assert (play.fetch(f"HEAD {path}").status, play.got.body) == (200, b"")
    got = play.fetch("GET /health")
    assert (got.status, got.headers["content-type"]) == (200, "application/json")
    health = json.loads(got.body)
    assert health["client_validation"] is True
    assert health["status"] == "healthy"
    assert health["tiers"]["haiku"] == {
        "model": "glm-4.5-air",
        "provider": "zai",
        "provider_set": True,
        "uses_oauth": False,
    }
    assert health["providers"]["zai"]["key_set"] is True
    assert b"zai-key-for-tests" not in got.body
    assert SECRET.encode() not in got.body
    assert play.opening == []


@pytest.mark.parametrize("line", ["GET /health", "HEAD /"])
def test_a_stranger_to_the_health_page_has_its_connection_closed_as_it_asked(play, line):
    assert play.fetch(line, Connection="close").status == 200
    assert play.client in play.closed


@pytest.mark.parametrize(
    ("to", "status", "tier"),
    [("[zai/glm, anthropic]", "healthy", "anthropic"), ("zai/glm", "unhealthy", None)],
)
def test_health_reports_what_keeps_it_from_being_healthy(tmp_path, to, status, tier):
    rules = f"""
providers:
  anthropic: {{url: "http://home.invalid", auth: client}}
  zai: {{url: "http://zai.invalid", key: "${{ZAI_API_KEY}}"}}
rules:
  - {{match: "*haiku*", to: {to}}}
"""
    with played(tmp_path, rules) as router:
        health = router.health_page
    assert health["status"] == status
    assert health["providers"]["zai"]["available"] is False
    assert health["providers"]["zai"]["reason"] == "ZAI_API_KEY is not set"
    assert health["tiers"]["haiku"]["provider"] == tier
    assert health["tiers"]["haiku"]["uses_oauth"] is (tier == "anthropic")


# pages of other sites, where clients show secrets


def test_with_clients_only_the_routers_own_pages_are_judged(play, zai):
    evil = "https://evil.example"
    assert ask(play.router.connect(), Origin=evil).status == 401
    assert ask(play, Origin=evil, Host="any.example", X_Api_Key=SECRET).status == 200
    assert play.fetch("HEAD /", Host="router.example").status == 200
    for headers in ({"Origin": evil}, {"Host": "evil.example"}, {"Sec_Fetch_Site": "cross-site"}):
        page = play.router.connect()
        assert page.fetch("GET /health", X_Api_Key=SECRET, **headers).status == 403
