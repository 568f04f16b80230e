"""`signalbox claude` with the real Claude Code, before a scripted Anthropic and another provider."""

import re
import threading

import psutil
import pytest

from signalbox.lifecycle.running import running
from tests.support.answers import error_json, message_events, message_sse, sse, text_block
from tests.support.claude_code import Claude, Screen, bash_loop, is_main, said_last
from tests.support.fake_provider import Received, Upstream

OPUS, SONNET = "claude-opus-5-5", "claude-sonnet-5-5"


def rules(zai: Upstream) -> str:
    return f"""
providers:
  anthropic: {{url: "https://api.anthropic.com", auth: client}}
  zai: {{url: "{zai.url}", key: zai-key-for-tests-0001, models: [glm-4.7]}}
rules:
  - {{match: {{model: "*opus*", class: main, project: "*/project"}}, to: zai/glm-4.7}}
  - {{match: "glm-*", to: [zai, anthropic/{OPUS}]}}
  - {{match: "*", to: anthropic}}
"""


@pytest.fixture(params=["intercept", "base-url"])
def command(request: pytest.FixtureRequest, claude: Claude, second: Upstream) -> list[str]:
    return claude.through_signalbox(rules(second), "--via", request.param)


def main_requests(upstream: Upstream) -> list[Received]:
    return list(filter(is_main, upstream.requests))


def test_tool_loop_and_then_another_provider_in_the_same_conversation(claude, command, anthropic, second):
    second.answer(bash_loop("echo a-word", "That was it."))
    said = claude.ask("Run it", "--model", OPUS, "--allowedTools", "Bash", command=command)
    assert (said.exit_code, said.text) == (0, "That was it."), said
    first, loop = main_requests(second)
    assert first.json["model"] == "glm-4.7"
    assert "a-word" in said_last(loop)
    assert first.header("x-signalbox-project") is None
    said = claude.ask("And now?", "--continue", "--model", SONNET, command=command)
    assert (said.exit_code, said.text) == (0, "Hello there"), said
    (asked,) = main_requests(anthropic)
    assert asked.json["model"] == SONNET
    assert "a-word" in str(asked.json["messages"])
    assert asked.header("x-signalbox-project") is None


def test_model_of_the_picker_is_known_and_fails_over(claude, command, anthropic, second):
    second.answer(error_json(529, "overloaded_error"))
    said = claude.ask("Say hello", "--model", "glm-4.7", command=command)
    assert (said.exit_code, said.text) == (0, "Hello there"), said
    assert "unrecognized_model" not in said.stderr
    assert said.result["modelUsage"]["glm-4.7"]["contextWindow"] == 200_000
    assert main_requests(second)[0].json["model"] == "glm-4.7"
    assert main_requests(anthropic)[0].json["model"] == OPUS


def test_picker_and_status_line_are_on_the_screen(claude, command, second):
    with Screen(claude, [*command, "--model", OPUS]) as screen:
        screen.see("auto mode on")
        screen.type("Say hello")
        screen.see("Say hello")
        screen.type("\r")
        screen.see("zai/glm-4.7 · cache 77%")
        screen.type("/model")
        screen.see("Switch model")
        screen.type("\r")
        screen.see("glm-4.7 · zai")
    assert second.requests
    assert not claude.settings.exists()


def test_killed_router_costs_a_moment_and_a_plain_claude_works_at_once(claude, anthropic, second):
    command = claude.through_signalbox(rules(second))
    claude.ask("Say hello")
    before = claude.files()
    gate = threading.Event()
    start, *rest = message_events("glm-4.7", [text_block("")], ["half", " whole"], {"input_tokens": 1}, {})
    second.answer(sse(start, *rest[:3], gate, *rest[3:]), message_sse("glm-4.7", ["Hello again"]))
    patient = {"CLAUDE_CODE_MAX_RETRIES": ""}  # ten, as usual
    process = claude.start("Say hello", "--model", OPUS, command=command, environment=patient)
    second.wait_for(1, timeout=60)
    found = running("127.0.0.1", claude.port)
    assert found is not None
    psutil.Process(found.pid).kill()
    out, err = process.communicate(timeout=100)
    gate.set()
    assert process.returncode == 0, err
    assert "Hello again" in out
    assert re.search(r"the router ended \(signal 9; .*\) and was started again", err)
    assert claude.files() - before <= {".claude/.last-cleanup"}  # Claude Code's own
    assert claude.ask("Say hello").text == "Hello there"
    assert main_requests(anthropic)[-1].json["messages"]
