"""mitmproxy's commands of the router, as typed into the command bar of mitmweb."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.answers import message_sse
from tests.support.fake_provider import Upstream
from tests.support.mitmweb import Web
from tests.support.raw_client import Caller

pytestmark = pytest.mark.slow

KEY = "zai-key-for-tests-0001"


def rules(home: Upstream, zai: Upstream, local: str = "http://127.0.0.1:1") -> str:
    return f"""
providers:
  anthropic: {{url: "{home.url}", auth: client}}
  zai: {{url: "{zai.url}", key: "{KEY}", prices: {{"*": {{input: 1, output: 2}}}}}}
  local: {{url: "{local}", api: openai, key: local-key-for-tests}}
rules:
  - {{name: coding, match: {{model: "*sonnet*", stream: true}}, to: [zai/glm-4.7, anthropic]}}
"""


@pytest.fixture
def web(tmp_path: Path, upstream: Upstream, second: Upstream) -> Iterator[Web]:
    with Web(tmp_path, upstream.url, rules=rules(upstream, second)) as router:
        yield router


def ask(web: Web, model: str = "claude-sonnet-4-5") -> str:
    """The id of the flow that shows it."""
    known = {flow["id"] for flow in web.flows()}
    with Caller(web) as caller:
        caller.ask(model)
        assert caller.answer().status == 200
    (flow,) = [one for one in web.finished(len(known) + 1) if one["id"] not in known]
    return str(flow["id"])


def test_rules_and_providers_are_listed(web):
    listed = web.command("signalbox.rules")
    assert listed[0].startswith(f"{web.rules_file}, loaded at ")
    assert listed[1:] == ["rules.yaml:7 coding: model *sonnet*, stream true → zai/glm-4.7, anthropic"]
    lines = web.command("signalbox.providers")
    assert lines[0].startswith("anthropic: http://127.0.0.1")
    assert lines[1].endswith("; available; circuit closed")
    assert KEY not in "".join(lines)


def test_flow_is_explained_by_the_rules_in_force(web, upstream, second):
    second.answer(message_sse("glm-4.7"))
    flow = ask(web)
    lines = web.command("signalbox.explain", f"@{flow}")
    assert lines[1].endswith("rule=coding attempts=zai:200")
    assert "rules.yaml:7 coding matches claude-sonnet-4-5" in lines
    assert "   changed: model claude-sonnet-4-5 → glm-4.7" in lines
    web.rules(rules(upstream, second).replace("[zai/glm-4.7, anthropic]", "local/qwen3"))
    web.command("signalbox.reload")
    web.wait_log("rules loaded(?s:.*)rules loaded")
    assert any(line.startswith("1. local: POST") for line in web.command("signalbox.explain", f"@{flow}"))


def test_reload_says_what_is_wrong_and_keeps_the_rules(web):
    web.command("signalbox.reload")
    web.wait_log("rules unchanged: 3 providers, 1 rule")
    web.rules("rules: 1")
    web.command("signalbox.reload")
    web.wait_log(r"rules.yaml:1: .*\n.*stay in force")
    assert any(line.startswith("not in force for an error: ") for line in web.command("signalbox.rules"))


def test_what_is_no_request_to_the_messages_api_is_not_explained(web, upstream):
    with pytest.raises(ValueError, match="matched 0"):
        web.command("signalbox.explain", "~m PATCH")
    web.command("view.flows.create", "get", "https://example.com/")
    with pytest.raises(ValueError, match="no request to the Messages API"):
        web.command("signalbox.explain", "~u example")
