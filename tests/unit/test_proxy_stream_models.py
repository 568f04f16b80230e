"""Models as they are picked from the router's list, and requests about models that are only passed on.

The list itself is in `test_background_model_list` and `tests/e2e/test_models.py`.
"""

import json

import pytest

from tests.support.answers import json_answer
from tests.support.playbook import PlayedRouter, Provider, played

KEY = "sk-ant-api03-fake-key-of-nobody"
DISCOVERY = {
    "User-Agent": "claude-code/2.1.328",
    "Anthropic-Version": "2023-06-01",
    "X-Api-Key": KEY,
    "Accept": "application/json",
    "Accept-Encoding": "gzip, deflate, br, zstd",
}
"""As Claude Code 2.1.328 sends it (claude-code-observed.md, 1)."""
QUOTA = "anthropic-ratelimit-unified-5h-utilization"
LIST = json_answer({"data": [{"type": "model", "id": "claude-opus-5-5"}]}, headers=((QUOTA, "0.4"),))
RULES = """
providers:
  anthropic: {url: "http://home.invalid", auth: client, long_context: ["*opus*"]}
  local: {url: "http://local.invalid/local", models: [qwen3], long_context: ["qwen*"]}
rules:
  - {match: "qwen*", to: local}
  - {match: "*", to: anthropic}
"""


@pytest.fixture
def local(played_router: PlayedRouter) -> Provider:
    return played_router.provider("local")


@pytest.fixture
def upstream(played_router: PlayedRouter) -> Provider:
    return played_router.provider("upstream")


@pytest.mark.parametrize("line", ["GET /v1/models/claude-opus-5-5", "POST /v1/models", "HEAD /v1/models"])
def test_other_requests_about_models_are_forwarded(play, upstream, line):
    assert play.fetch(line, **DISCOVERY).status == 200
    (sent,) = upstream.requests
    assert (f"{sent.method} {sent.path}", sent.header("x-api-key")) == (line, KEY)


@pytest.mark.parametrize("asked", ["claude-router-qwen3", "claude-router-qwen3[1m]", "qwen3[1M]"])
def test_what_was_picked_from_the_list_is_routed_as_the_model_it_stands_for(play, local, asked):
    assert json.loads(play.ask(asked).body)["model"] == asked
    (sent,) = local.requests
    assert (sent.path, sent.json["model"]) == ("/local/v1/messages", "qwen3")


def test_a_claude_model_with_long_context_goes_to_anthropic_under_its_own_name(play, home):
    assert play.ask("claude-opus-5-5[1m]").headers["x-signalbox-provider"] == "anthropic"
    assert home.requests[0].json["model"] == "claude-opus-5-5[1m]"


@pytest.mark.parametrize(
    "rules",
    [
        "",
        "rules: []\nproviders:\n  zai: {url: 'http://zai.invalid', models: list}",
        'providers: {a: {url: "http://zai.invalid"}}\nrules: [{match: "*", to: a}]',
    ],
    ids=["a pure pipe", "no rules", "no models in the rules"],
)
def test_without_models_and_rules_the_upstreams_own_list_is_forwarded_with_all_headers(tmp_path, rules):
    with played(tmp_path, rules) as router:
        upstream = router.provider("upstream")
        upstream.answer(LIST)
        got = router.connect().fetch("GET /v1/models?limit=1000", **DISCOVERY)
        assert (got.body, got.headers[QUOTA]) == (LIST.body, "0.4")
        assert upstream.requests[0].header("accept-encoding") == DISCOVERY["Accept-Encoding"]
