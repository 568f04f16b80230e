"""One complete setup of each family, run from its own file in examples/.

Only the beginning of each URL is another: the one fake provider has the host as first part of the path.
"""

import json
import re
import time
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support import chat
from tests.support.answers import Answer, error_json, json_answer, message_json
from tests.support.fake_provider import Received, Upstream, usual
from tests.support.router import Router
from tests.support.router_process import ROOT, RouterFiles, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("home_folder")]

LOGIN = "sk-ant-oat01-fake-login-of-nobody"
KEYS = {
    name: f"{name.lower().replace('_', '-')}-for-tests"
    for name in (
        "ZAI_API_KEY", "OPENROUTER_API_KEY", "LITELLM_API_KEY", "CUSTOMER_ANTHROPIC_KEY",
        "TEAM_ANTHROPIC_KEY", "TEAM_ZAI_KEY", "CLIENT_LAPTOP", "CLIENT_BUILD_SERVER", "CLIENT_SECRET",
    )
} | {"LEDGER_URL": "sqlite"}  # fmt: skip
HAIKU, SONNET, OPUS = "claude-haiku-4-5", "claude-sonnet-4-5", "claude-opus-4-5"


class Asked(NamedTuple):
    """What one provider was asked."""

    host: str
    path: str
    model: str
    credential: str


class Answered(NamedTuple):
    status: int
    provider: str
    body: Any


def rules_of(example: str, upstream: Upstream) -> str:
    text = (ROOT / "examples" / example).read_text(encoding="utf-8")
    return re.sub(r"(?<=url: )https?://", f"{upstream.url}/", text)


@pytest.fixture
def run(start_router: Callable[..., RouterFiles], upstream: Upstream) -> Callable[..., RouterFiles]:
    """Starts a router with the rules of an example. The provider answers in the protocol of its path."""
    upstream.answer(by_path)
    return lambda example: start_router(upstream.url, rules=rules_of(example, upstream), environment=KEYS)


def by_path(received: Received) -> Answer:
    path = received.path.partition("?")[0]
    if path.endswith("/models"):
        return json_answer({"data": [{"type": "model", "id": "gemini-3.8-flash", "display_name": "Gemini"}]})
    return chat.completion() if path.endswith("/chat/completions") else usual(received)


def ask(
    router: RouterFiles, model: str, *, port: int = 0, login: str | None = LOGIN, **headers: str
) -> Answered:
    body = json.dumps({"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]})
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    if login:
        fields["Authorization"] = f"Bearer {login}"
    with closing(HTTPConnection("127.0.0.1", port or router.ports[0], timeout=10)) as connection:
        connection.request("POST", "/v1/messages", body, fields)
        answer = connection.getresponse()
        return Answered(answer.status, answer.getheader("x-signalbox-provider", ""), json.load(answer))


def listed(router: RouterFiles) -> set[str]:
    """Ids of the models that the picker shows."""
    with closing(HTTPConnection("127.0.0.1", router.ports[0], timeout=10)) as connection:
        connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {LOGIN}"})
        return {model["id"] for model in json.load(connection.getresponse())["data"]}


def asked(upstream: Upstream) -> list[Asked]:
    """Who was asked what since the last time."""
    found = []
    for one in [one for one in upstream.requests if one.method == "POST" and "count_tokens" not in one.path]:
        host, _, path = one.path.lstrip("/").partition("/")
        credential = one.header("x-api-key") or (one.header("authorization") or "").removeprefix("Bearer ")
        found.append(Asked(host, f"/{path.partition('?')[0]}", one.json["model"], credential))
    upstream.requests.clear()
    return found


def test_three_tiers_have_three_providers(run, upstream):
    router = run("tiers.yaml")
    for model in (HAIKU, SONNET, OPUS):
        assert ask(router, model).status == 200
    assert asked(upstream) == [
        Asked("api.z.ai", "/api/anthropic/v1/messages", "glm-4.5-air", KEYS["ZAI_API_KEY"]),
        Asked("openrouter.ai", "/api/v1/messages", "z-ai/glm-4.7", KEYS["OPENROUTER_API_KEY"]),
        Asked("api.anthropic.com", "/v1/messages", OPUS, LOGIN),
    ]


def test_zai_executes_and_claude_reasons_and_each_stands_in_for_the_other(run, upstream):
    router = run("reasoning.yaml")
    assert ask(router, SONNET).provider == "zai"
    assert ask(router, OPUS).provider == "anthropic"
    assert ask(router, OPUS, x_claude_code_agent_id="a").provider == "zai"
    assert [one.model for one in asked(upstream)] == ["glm-4.7", OPUS, "glm-4.7"]
    upstream.answer(lambda one: error_json(500, "api_error") if "api.z.ai" in one.path else by_path(one))
    assert ask(router, SONNET).provider == "anthropic"
    assert [(one.host, one.model) for one in asked(upstream)] == [
        ("api.z.ai", "glm-4.7"),
        ("api.anthropic.com", SONNET),
    ]


@pytest.mark.parametrize("example", ["failover.yaml", "failover-postgres/rules/rules.yaml"])
def test_a_chain_fails_over_and_passes_a_spent_weekly_quota_over(run, upstream, example):
    """The database of the second is another here; its own runs in slow/test_failover_postgres.py."""
    used = {"input_tokens": 46_000_000, "output_tokens": 5}  # of 50M, of which 90 % may be used

    def answer(received: Received) -> Answer:
        if "api.anthropic.com" in received.path:
            return error_json(529, "overloaded_error")
        if "api.z.ai" in received.path:
            return message_json(received.json["model"], usage=used)
        return by_path(received)

    upstream.answer(answer)
    router = run(example)
    upstream.answer(answer)
    secret = {"x_signalbox_client": KEYS["CLIENT_SECRET"]}
    assert ask(router, HAIKU, **secret).provider == "zai"
    assert [one.model for one in asked(upstream)] == [HAIKU, "glm-4.5-air"]
    wait_until(lambda: ask(router, OPUS, **secret).provider == "openrouter", 20, router.log)
    last = asked(upstream)[-1]
    assert last == Asked("openrouter.ai", "/api/v1/messages", "z-ai/glm-4.7", KEYS["OPENROUTER_API_KEY"])


def test_four_ports_lead_to_four_providers_of_chat_completions_with_one_key(tmp_path, upstream):
    upstream.answer(by_path)
    router = Router(tmp_path, *[upstream.url] * 5, rules=None, environment=KEYS)
    rules = rules_of("ports-one-key.yaml", upstream)
    for written, port in zip(range(8082, 8087), router.ports, strict=True):
        rules = rules.replace(f"127.0.0.1:{written}", f"127.0.0.1:{port}")
    router.rules_file.write_text(rules, encoding="utf-8")
    with router:
        providers = [ask(router, SONNET, port=port).provider for port in router.ports]
    assert providers == ["anthropic", "kimi", "glm", "minimax", "gemini"]
    first, *others = asked(upstream)
    assert first == Asked("api.anthropic.com", "/v1/messages", SONNET, LOGIN)
    models = ["moonshotai/kimi-k3", "z-ai/glm-5.3", "minimax/minimax-m3", "google/gemini-3.8-flash"]
    key = KEYS["OPENROUTER_API_KEY"]
    assert others == [Asked("openrouter.ai", "/api/v1/chat/completions", model, key) for model in models]


def test_a_plan_that_is_used_up_leads_to_litellm_and_the_picker_has_its_models(run, upstream):
    router = run("quota-litellm.yaml")
    assert ask(router, "gemini-3.8-flash").provider == "litellm"
    assert ask(router, SONNET).provider == "anthropic"
    wait_until(lambda: "claude-router-gemini-3.8-flash[1m]" in listed(router), 20, router.log)
    wait_until((Path.home() / ".claude" / "cache" / "gateway-models.json").exists, 10, router.log)
    window = "anthropic-ratelimit-unified-5h-"
    full = (
        (f"{window}utilization", "0.91"),
        (f"{window}status", "allowed"),
        (f"{window}reset", str(int(time.time()) + 3600)),
    )

    def answer(received: Received) -> Answer:
        answer = by_path(received)
        return Answer(answer.status, (*answer.headers, *full), answer.chunks, answer.framing)

    upstream.answer(answer)
    assert ask(router, SONNET).provider == "anthropic"
    status = Path.home() / ".claude" / "usage-status.md"
    wait_until(lambda: status.exists() and status.read_text().startswith("5h=91% 7d=0%"), 10, router.log)
    asked(upstream)
    assert ask(router, SONNET).provider == "litellm"
    (to_litellm,) = asked(upstream)
    assert to_litellm == Asked("127.0.0.1:4000", "/v1/messages", "claude-sonnet-4-6", KEYS["LITELLM_API_KEY"])
    refused = ask(router, HAIKU)
    assert (refused.status, refused.body["error"]["message"]) == (
        500,
        "The plan is used up, and Haiku has no other target.",
    )
    assert asked(upstream) == []


def test_a_team_shares_a_gateway_with_a_secret_for_each(run, upstream):
    router = run("team.yaml")
    assert ask(router, SONNET, login="somebody-elses-secret").status == 401
    assert ask(router, SONNET, login=KEYS["CLIENT_LAPTOP"]).provider == "anthropic"
    assert ask(router, HAIKU, login=KEYS["CLIENT_LAPTOP"]).provider == "zai"
    assert ask(router, OPUS, login=KEYS["CLIENT_BUILD_SERVER"]).provider == "zai"
    assert [(one.model, one.credential) for one in asked(upstream)] == [
        (SONNET, KEYS["TEAM_ANTHROPIC_KEY"]),
        ("glm-4.5-air", KEYS["TEAM_ZAI_KEY"]),
        ("glm-4.7", KEYS["TEAM_ZAI_KEY"]),
    ]


def test_compaction_and_auxiliary_requests_go_to_cheap_models(run, upstream):
    router = run("classes.yaml")
    for name in ("main", "compaction", "auxiliary"):
        ask(router, OPUS, x_claude_code_request_class=name)
    ask(router, OPUS)
    assert [one.model for one in asked(upstream)] == [OPUS, "glm-5.3", "glm-4.5-air", OPUS]


def test_each_project_has_its_account_and_no_provider_hears_its_name(run, upstream, home_folder):
    folder = home_folder / ".claude-work"
    folder.mkdir()
    login = {"accessToken": "sk-ant-oat01-fake-login-for-work", "expiresAt": int(time.time() + 3600) * 1000}
    (folder / ".credentials.json").write_text(json.dumps({"claudeAiOauth": login}))
    router = run("projects.yaml")
    for project in ("/home/me/jobs/site", "/home/me/jobs/customer/app", "/home/me/garden"):
        assert ask(router, OPUS, x_signalbox_project=project).status == 200
    assert ask(router, OPUS).status == 200
    assert not any(
        "x-signalbox-project" in name.lower() for one in upstream.requests for name, _ in one.headers
    )
    credentials = [one.credential for one in asked(upstream)]
    assert credentials == [login["accessToken"], KEYS["CUSTOMER_ANTHROPIC_KEY"], LOGIN, LOGIN]
