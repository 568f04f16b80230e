"""`signalbox claude` with the real Claude Code, before a scripted Anthropic and another provider."""

import pytest

from tests.support.answers import error_json
from tests.support.claude_code import Claude, bash_loop, is_main
from tests.support.fake_provider import Upstream

OPUS = "claude-opus-5-5"


def rules(zai: Upstream) -> str:
    return f"""
providers:
  anthropic: {{url: "https://api.anthropic.com", auth: client}}
  zai: {{url: "{zai.url}", key: zai-key-for-tests-0001, models: [glm-4.7]}}
rules:
  - {{match: "glm-*", to: zai}}
  - {{match: "*opus*", to: [zai/glm-4.7, anthropic]}}
  - {{match: "*", to: anthropic}}
"""


@pytest.fixture(params=["intercept", "base-url"])
def command(request: pytest.FixtureRequest, claude: Claude, second: Upstream) -> list[str]:
    return claude.through_signalbox(rules(second), "--via", request.param)


def test_tool_loop_with_a_failover(claude, command, anthropic, second):
    second.answer(error_json(529, "overloaded_error"))
    anthropic.answer(bash_loop("echo a-word", "That was it."))
    said = claude.ask("Run it", "--model", OPUS, "--allowedTools", "Bash", command=command)
    assert (said.exit_code, said.text) == (0, "That was it."), said
    assert "a-word" in str([one.json["messages"][-1] for one in filter(is_main, anthropic.requests)])
