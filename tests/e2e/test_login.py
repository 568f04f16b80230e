"""`auth: claude-login`: the login of a subscription as a target between an API key and another provider."""

import json
import time
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.support.answers import Answer, error_json, json_answer, message_json, message_sse
from tests.support.fake_provider import Received, Upstream
from tests.support.router import Router
from tests.support.router_process import wait_until

CALLER = "sk-ant-oat01-fake-login-of-caller"
TOKEN = "sk-ant-oat01-fake-login-of-nobody"
API_KEY = "sk-ant-api03-fake-key-of-nobody"
ZAI = "zai-key-for-tests-0001"
REJECTED = (
    ("anthropic-ratelimit-unified-status", "rejected"),
    ("anthropic-ratelimit-unified-5h-status", "rejected"),
)


def write_login(folder: Path, token: str = TOKEN, expires_in: float = 3600) -> None:
    folder.mkdir(exist_ok=True)
    written = folder / "new"
    expires = int((time.time() + expires_in) * 1000)
    written.write_text(
        json.dumps({"claudeAiOauth": {"accessToken": token, "refreshToken": "fake", "expiresAt": expires}})
    )
    written.replace(folder / ".credentials.json")


class Anthropic:
    """Answers keys and logins each as it is told."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.api: Answer | None = None
        self.plan: Answer | None = None
        upstream.answer(self._answer)

    def _answer(self, request: Received) -> Answer:
        scripted = self.api if request.header("x-api-key") else self.plan
        if scripted is not None:
            return scripted
        if "count_tokens" in request.path:
            return json_answer({"input_tokens": 8})
        stream = request.json.get("stream")
        return message_sse(request.json["model"]) if stream else message_json(request.json["model"])


@pytest.fixture
def anthropic(upstream: Upstream) -> Anthropic:
    return Anthropic(upstream)


@pytest.fixture
def login(tmp_path: Path) -> Path:
    folder = tmp_path / "config"
    write_login(folder)
    return folder


@pytest.fixture
def router(
    start_router: Callable[..., Router], anthropic: Anthropic, second: Upstream, login: Path
) -> Router:
    home = anthropic.upstream.url
    router: Router = start_router(
        home,
        rules=f"""
providers:
  api: {{url: "{home}", key: {API_KEY}}}
  subscription: {{url: "{home}", auth: claude-login, login: "{login}"}}
  zai: {{url: "{second.url}", key: {ZAI}}}
rules:
  - {{match: "alone", to: subscription}}
  - {{match: "*", to: [api, subscription, zai/glm-4.7]}}
log: {{level: debug}}
""",
    )
    return router


def ask(router: Router, model: str = "claude-opus-4-5", stream: bool = True, **headers: str) -> Any:
    with closing(HTTPConnection("127.0.0.1", router.ports[0], timeout=10)) as connection:
        body = json.dumps({"model": model, "stream": stream, "messages": []})
        usual = {"Authorization": f"Bearer {CALLER}", "anthropic-beta": "a-2026-01-01,b-2026-01-01"}
        connection.request("POST", "/v1/messages", body, usual | headers)
        answer = connection.getresponse()
        return answer.status, answer.headers["x-signalbox-attempts"], answer.read()


def attempts(router: Router, **options: Any) -> str:
    return str(ask(router, **options)[1])


def test_the_chain_goes_from_key_to_subscription_to_another_provider(router, anthropic, second):
    assert attempts(router) == "api:200"
    anthropic.api = error_json(429, "rate_limit_error")
    assert attempts(router) == "api:429 subscription:200"
    anthropic.plan = error_json(429, "rate_limit_error", headers=REJECTED)
    assert attempts(router) == "subscription:429 zai:200"
    assert attempts(router) == "zai:200"
    assert [request.header("x-api-key") for request in second.requests] == [ZAI, ZAI]


def test_it_is_asked_with_its_own_token_as_bearer_and_the_oauth_beta(router, anthropic):
    ask(router, model="alone")
    (sent,) = anthropic.upstream.requests
    assert [value for name, value in sent.headers if name.lower() == "authorization"] == [f"Bearer {TOKEN}"]
    assert sent.header("anthropic-beta") == "a-2026-01-01,b-2026-01-01,oauth-2025-04-20"
    assert not any(CALLER in value for _, value in sent.headers)
    ask(router, model="alone", **{"anthropic-beta": "oauth-2025-04-20,a-2026-01-01"})
    assert anthropic.upstream.requests[-1].header("anthropic-beta") == "oauth-2025-04-20,a-2026-01-01"


def test_a_renewed_login_is_used_at_the_next_request(router, anthropic, login):
    ask(router, model="alone")
    write_login(login, f"{TOKEN}-renewed")
    ask(router, model="alone")
    assert [request.header("authorization") for request in anthropic.upstream.requests] == [
        f"Bearer {TOKEN}",
        f"Bearer {TOKEN}-renewed",
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda folder: write_login(folder, expires_in=-1), "the login in {} has expired"),
        (lambda folder: (folder / ".credentials.json").unlink(), "there is no login in {}"),
    ],
    ids=["expired", "missing"],
)
def test_without_a_login_that_is_valid_it_is_passed_over(router, anthropic, login, change, reason):
    change(login)
    anthropic.api = error_json(429, "rate_limit_error")
    assert attempts(router) == "api:429 zai:200"
    status, _, body = ask(router, model="alone")
    assert status == 503
    assert reason.format(login) in json.loads(body)["error"]["message"]
    page = router.health()
    told = page["providers"]["subscription"]
    assert (told["available"], page["status"]) == (False, "unhealthy")
    assert told["reason"].startswith(f"no-login: {reason.format(login)}")
    write_login(login)
    assert attempts(router) == "subscription:200"


def test_a_token_that_anthropic_refuses_gives_way(router, anthropic):
    anthropic.api = error_json(429, "rate_limit_error")
    anthropic.plan = error_json(401, "authentication_error")
    assert attempts(router) == "api:429 subscription:401 zai:200"


def test_the_login_is_never_written_or_shown(router, anthropic, login):
    file = login / ".credentials.json"
    before = (file.read_bytes(), file.stat().st_mtime_ns)
    anthropic.api = error_json(429, "rate_limit_error")
    anthropic.plan = error_json(401, "authentication_error", f"bad token {TOKEN}")
    ask(router)
    health = json.dumps(router.health())
    router.records(1)
    router.stop()
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before
    assert sorted(path.name for path in login.iterdir()) == [".credentials.json"]
    texts = [router.log(), health, *(path.read_text("latin-1") for path in router.state.rglob("*.json*"))]
    assert not any(secret in text for text in texts for secret in (TOKEN, CALLER, API_KEY))


def test_its_quota_is_watched_like_every_plans(router, anthropic):
    utilization = (("anthropic-ratelimit-unified-5h-utilization", "0.4"),)
    anthropic.plan = json_answer(json.loads(message_json("alone").body), headers=utilization)
    ask(router, model="alone", stream=False)
    quota = router.health()["providers"]["subscription"]["quota"]
    assert quota["windows"]["5h"]["percent"] == 40


def test_a_plan_that_is_used_up_is_probed_with_the_login(start_router, anthropic, second, login):
    home = anthropic.upstream.url
    quota = "quota: {probe: 50ms, redirect_at: {5h: 90}}"
    router = start_router(
        home,
        rules=f"""
providers:
  subscription: {{url: "{home}", auth: claude-login, login: "{login}", {quota}}}
  zai: {{url: "{second.url}", key: {ZAI}}}
rules:
  - {{match: "*", to: [subscription, zai]}}
""",
    )
    anthropic.plan = error_json(429, "rate_limit_error", headers=REJECTED)
    assert attempts(router) == "subscription:429 zai:200"
    wait_until(lambda: len(anthropic.upstream.requests) >= 2, 5, lambda: "a probe")
    assert anthropic.upstream.requests[-1].header("authorization") == f"Bearer {TOKEN}"
    opened = (
        ("anthropic-ratelimit-unified-5h-status", "allowed"),
        ("anthropic-ratelimit-unified-5h-utilization", "0.1"),
    )
    anthropic.plan = json_answer({"input_tokens": 8}, headers=opened)
    router.wait_log("mode transition: zai -> subscription")
