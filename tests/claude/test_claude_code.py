"""Claude Code behind a base URL: what it sends, and what it makes of the answers."""

from tests.support.answers import error_json
from tests.support.claude_code import bash_loop, is_main


def rules(home, up) -> str:
    return f"""
providers:
  anthropic: {{url: "{home.url}", auth: client}}
  zai: {{url: "{up.url}", key: zai-key-for-tests-0001}}
rules:
  - {{match: "*opus*", to: [zai/glm-4.7, anthropic]}}
  - {{match: "*", to: anthropic}}
"""


def test_prompt_is_answered_by_the_provider_of_the_rules(claude, start_router, upstream, second):
    router = start_router(upstream.url, rules=rules(upstream, second))
    said = claude.ask("Say hello", "--model", "claude-opus-5-5", base_url=router.url)
    assert (said.exit_code, said.text) == (0, "Hello there"), said
    (asked,) = filter(is_main, second.requests)
    assert asked.json["model"] == "glm-4.7"


def test_tool_loop_and_failover(claude, start_router, upstream, second):
    router = start_router(upstream.url, rules=rules(upstream, second))
    second.answer(error_json(529, "overloaded_error"))
    upstream.answer(bash_loop("echo a-word", "That was it."))
    said = claude.ask("Run it", "--model", "claude-opus-5-5", "--allowedTools", "Bash", base_url=router.url)
    assert (said.exit_code, said.text) == (0, "That was it."), said
    assert "a-word" in str([one.json["messages"][-1] for one in filter(is_main, upstream.requests)])
