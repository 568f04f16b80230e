"""GET /v1/models, as Claude Code asks for it, and what it then does with the list."""

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import anthropic
import pytest

from tests.support.answers import Answer, error_json, json_answer
from tests.support.fake_provider import Upstream
from tests.support.raw_client import Caller
from tests.support.router import Router
from tests.support.router_process import wait_until
from tests.support.tls import TlsUpstream, certify

KEY = "sk-ant-api03-fake-key-of-nobody"
DISCOVERY = {
    "User-Agent": "claude-code/2.1.328",
    "anthropic-version": "2023-06-01",
    "x-api-key": KEY,
    "Accept": "application/json",
    "Accept-Encoding": "gzip, deflate, br, zstd",
}
"""As Claude Code 2.1.328 sends it (claude-code-observed.md, 1)."""

OPUS = {
    "type": "model",
    "id": "claude-opus-5-5",
    "display_name": "Claude Opus 5.5",
    "created_at": "2026-09-28T00:00:00Z",
    "lifecycle": "active",
    "capabilities": {"of_tomorrow": {"supported": True}},
}
CLAUDE = json_answer({"data": [OPUS], "has_more": False, "first_id": OPUS["id"], "last_id": OPUS["id"]})
OPENAI = json_answer({"object": "list", "data": [{"id": "glm-4.7", "object": "model", "owned_by": "z"}]})


def rules(home: Upstream, zai: Upstream, more: str = "") -> str:
    return f"""
providers:
  anthropic: {{url: "{home.url}", auth: client, long_context: ["*opus*"]}}
  zai: {{url: "{zai.url}/v1", api: openai, key: zai-key-for-tests-0001, models: list}}
  local: {{url: "{zai.url}/local", models: [qwen3], long_context: ["qwen*"]}}
rules:
  - {{match: "qwen*", to: local}}
  - {{match: "glm-*", to: zai}}
  - {{match: "*", to: anthropic}}
{more}
"""


class Listed(NamedTuple):
    status: int
    headers: dict[str, str]
    json: Any

    @property
    def ids(self) -> list[str]:
        return [entry["id"] for entry in self.json["data"]]


def discover(router: Router, path: str = "/v1/models?limit=1000", timeout: float = 3, **more: str) -> Listed:
    """On a connection of its own, with the client's limit."""
    with closing(HTTPConnection("127.0.0.1", router.ports[0], timeout=timeout)) as connection:
        connection.request("GET", path, headers=DISCOVERY | more)
        answer = connection.getresponse()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return Listed(answer.status, headers, json.loads(answer.read()))


@pytest.mark.slow
def test_claude_code_gets_one_list_of_all(shared):
    shared.upstream.answer(CLAUDE)
    shared.second.answer(OPENAI)
    listed = discover(shared.router)
    assert listed.status == 200
    assert listed.headers["content-type"] == "application/json"
    assert [(entry["id"], entry["display_name"]) for entry in listed.json["data"]] == [
        ("claude-opus-5-5", "Claude Opus 5.5 (200K)"),
        ("claude-opus-5-5[1m]", "Claude Opus 5.5 (1M context)"),
        ("claude-router-glm-4.7", "glm-4.7"),
        ("claude-router-qwen3", "qwen3"),
        ("claude-router-qwen3[1m]", "qwen3 (1M context)"),
    ]
    assert listed.json["data"][0] == OPUS | {"display_name": "Claude Opus 5.5 (200K)"}
    assert listed.json["has_more"] is False
    assert listed.json["first_id"] == "claude-opus-5-5"
    assert listed.json["last_id"] == "claude-router-qwen3[1m]"
    with anthropic.Anthropic(base_url=shared.router.url, api_key=KEY, max_retries=0) as client:
        whole = [model.id for model in client.models.list()]
        assert whole == [entry["id"] for entry in listed.json["data"]]
        assert [model.id for model in client.models.list(limit=2)] == whole
        assert client.models.list().data[2].created_at.year == 1970


@pytest.mark.slow
def test_no_credential_arrives_where_it_does_not_belong(shared):
    shared.upstream.answer(CLAUDE)
    shared.second.answer(OPENAI)
    discover(shared.router, Cookie="session=of-nobody")
    (home,), (other,) = shared.upstream.requests, shared.second.requests
    assert (home.path, other.path) == ("/v1/models?limit=1000", "/v1/models")
    assert (home.header("x-api-key"), home.header("authorization")) == (KEY, None)
    assert home.header("user-agent") == "claude-code/2.1.328"
    assert other.header("authorization") == "Bearer zai-key-for-tests-0001"
    arrived = json.dumps(other.headers)
    assert "sk-ant" not in arrived
    assert "of-nobody" not in arrived
    assert "zai-key" not in json.dumps(home.headers)


def test_what_anthropic_refuses_reaches_the_client_as_it_is(shared):
    shared.second.answer(OPENAI)
    for status in (401, 403, 429):
        head = (("Retry-After", "7"), ("X-Two", "a"))
        refusal = error_json(status, "of_anthropic", "not you", headers=head)
        shared.upstream.answer(refusal)
        listed = discover(shared.router)
        assert (listed.status, listed.headers["retry-after"]) == (status, "7")
        assert json.dumps(listed.json, separators=(",", ":")).encode() == refusal.body
    shared.second.reset()
    shared.second.answer(OPENAI)
    shared.upstream.answer(Answer(307, (("Location", f"{shared.second.url}/v1/models"),), (b"{}",)))
    assert discover(shared.router).status == 307
    assert [received.path for received in shared.second.requests] == ["/v1/models"], "it is not followed"
    assert shared.second.requests[0].header("x-api-key") is None


@pytest.mark.slow
def test_a_list_that_hangs_holds_nobody_up_and_a_client_that_leaves_costs_nothing(shared):
    shared.upstream.answer(Answer(wait=threading.Event()))
    shared.second.answer(OPENAI)
    with pytest.raises(TimeoutError):
        discover(shared.router, timeout=0.3)
    found: list[Listed] = []
    asking = threading.Thread(target=lambda: found.append(discover(shared.router)))
    asking.start()
    try:
        shared.upstream.wait_for(2)
        begun = time.monotonic()
        for _ in range(5):
            shared.router.health()
        assert time.monotonic() - begun < 1
        assert not found
    finally:
        asking.join(5)
    assert found[0].ids == ["claude-router-glm-4.7", "claude-router-qwen3", "claude-router-qwen3[1m]"]
    shared.upstream.answer(CLAUDE)
    assert len(discover(shared.router).ids) == 5
    assert "Traceback" not in shared.router.log()


@pytest.mark.slow
def test_a_hanging_provider_is_left_out_before_claude_code_gives_up(start_router, upstream, second):
    upstream.answer(CLAUDE)
    second.answer(OPENAI)
    with Upstream() as third:
        third.answer(Answer(wait=threading.Event()))
        hanging = f'  third: {{url: "{third.url}", models: list}}\nrules:'
        router = start_router(upstream.url, rules=rules(upstream, second).replace("rules:", hanging))
        for _ in range(2):
            begun = time.monotonic()
            listed = discover(router)
            assert time.monotonic() - begun < 3  # seconds, as Claude Code waits (claude-code-gateway.md, 5)
            assert len(listed.ids) == 5
        third.wait_left(2)
    told = "no model list from third: it took longer than 2 s"
    assert router.log().count(told) == 1


def test_a_client_of_the_rules_shows_its_secret_to_the_router_alone(start_router, upstream, second):
    """And the windows that Anthropic tells with its list are heard."""
    told = {"5h-utilization": "0.4", "5h-status": "allowed", "5h-reset": str(int(time.time()) + 3600)}
    headers = [(f"anthropic-ratelimit-unified-{name}", value) for name, value in told.items()]
    upstream.answer(json_answer({"data": [OPUS]}, headers=headers))
    second.answer(OPENAI)
    router = start_router(upstream.url, rules=rules(upstream, second, "clients: {me: secret-for-tests-1}"))
    assert discover(router).status == 401
    listed = discover(router, **{"x-signalbox-client": "secret-for-tests-1"})
    assert len(listed.ids) == 5
    assert not [name for name in listed.headers if "ratelimit" in name]
    assert "40" in json.dumps(router.health()["providers"]["anthropic"]["quota"])
    assert "secret-for-tests-1" not in json.dumps(upstream.requests[0].headers + second.requests[0].headers)
    without_login = discover(router, **{"x-api-key": "secret-for-tests-1"})
    assert without_login.ids[0] == "claude-router-glm-4.7"
    assert len(upstream.requests) == 1


def test_a_forward_proxy_answers_for_anthropics_host(start_router, upstream, second):
    upstream.answer(CLAUDE)
    second.answer(OPENAI)
    router: Router = start_router(rules=rules(upstream, second))
    proxy = urllib.request.ProxyHandler({"http": router.url})
    request = urllib.request.Request(f"{upstream.url}/v1/models?limit=1000", headers=DISCOVERY)
    with urllib.request.build_opener(proxy).open(request, timeout=5) as answer:
        assert len(json.load(answer)["data"]) == 5


def ask(router: Router, model: str) -> dict[str, str]:
    """Asks for an answer of this model; gives the answer's headers and its model."""
    with Caller(router) as caller:
        caller.ask(model, stream=False)
        whole = caller.answer()
        return whole.headers | {"model": json.loads(whole.body)["model"]}


@pytest.mark.slow
def test_own_requests_trust_whom_mitmproxy_trusts(start_router, tmp_path, second):
    """For a list, and for a probe."""
    certificate = certify(tmp_path / "server.pem")
    used = ("anthropic-ratelimit-unified-5h-utilization", "0.95")
    quota = "auth: client, quota: {redirect_at: {5h: 90}, probe: 50ms},"
    with TlsUpstream(certificate) as home, TlsUpstream(certificate) as zai:
        home.answer(json_answer({"model": OPUS["id"]}, headers=[used]))
        zai.answer(OPENAI)
        for option in ("ssl_insecure=true", "ssl_verify_upstream_trusted_ca={}", "anticache=false"):
            home.reset()
            home.answer(json_answer({"model": OPUS["id"]}, headers=[used]))
            options = ("--set", option.format(certificate))
            text = rules(home, zai).replace("auth: client,", quota)
            router = start_router(home.url, rules=text, options=options)
            trusted = option.startswith("ssl_")
            assert ("claude-router-glm-4.7" in discover(router).ids) is trusted
            if trusted:
                ask(router, "claude-opus-5-5")
                wait_until(
                    lambda: "/v1/messages/count_tokens" in [one.path for one in home.requests], 5, router.log
                )
            router.stop()  # before its upstream, which it holds a connection to


def picker_file(router: Router, folder: str) -> Path:
    return router.folder / folder / "cache/gateway-models.json"


def shown(file: Path) -> tuple[str, list[str]]:
    if not file.exists():
        return "", []
    found = json.loads(file.read_text())
    return found["baseUrl"], [model["id"] for model in found["models"]]


@pytest.fixture
def picking(start_router, monkeypatch, tmp_path, upstream, second) -> Callable[..., Router]:
    """Starts a router that writes the picker files of two accounts."""

    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path / "router0"))

    def start(more: str = "picker: true") -> Router:
        upstream.answer(CLAUDE)
        second.answer(OPENAI)
        text = rules(upstream, second, more).replace(
            "auth: client,", "auth: client, quota: {accounts: [work]},"
        )
        return start_router(upstream.url, rules=text)

    return start


@pytest.mark.slow
def test_the_picker_files_follow_the_list_and_the_rules(picking, upstream, second):
    router = picking()
    own, work = picker_file(router, ".claude"), picker_file(router, "work")
    wait_until(lambda: shown(own)[1] and shown(work)[1], 5, router.log)
    assert shown(own) == shown(work)
    url, ids = shown(own)
    assert url == router.url
    assert "claude-haiku-4-5" in ids  # nobody has asked yet: of the stock list
    assert ids[-3:] == ["claude-router-glm-4.7", "claude-router-qwen3", "claude-router-qwen3[1m]"]
    assert upstream.requests == []
    listed = discover(router).ids
    wait_until(lambda: shown(own) == shown(work) == (url, listed), 5, router.log)
    assert KEY not in own.read_text()
    before = own.read_bytes()
    second.answer(error_json(500, "api_error"))
    text = router.rules_file.read_text()
    router.rules(text + "log: {level: debug}\n")
    router.wait_log("stays as it was, no list came from zai")
    assert own.read_bytes() == before, "a fetch that fails leaves it as it is"
    second.answer(OPENAI)
    router.rules(text.replace("qwen3", "qwen4"))
    wait_until(lambda: "claude-router-qwen4" in shown(own)[1], 5, router.log)


@pytest.mark.slow
def test_without_picker_in_the_rules_no_file_is_written(picking):
    router = picking("")
    discover(router)
    router.rules(router.rules_file.read_text() + "log: {level: debug}\n")
    router.wait_log("rules loaded.*(.|\n)*rules loaded")
    assert not picker_file(router, ".claude").exists()
