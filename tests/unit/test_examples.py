"""The rules in examples/: each loads, and sends what it says to whom it says."""

import os
import re

import pytest
from click.testing import CliRunner

from signalbox.cli.check import check
from signalbox.cli.explain import explain_command
from tests.support.router_process import ROOT

EXAMPLES = {path.stem: path for path in sorted((ROOT / "examples").glob("*.yaml")) if path.stem != "compose"}
SECRETS = {
    "ANTHROPIC_KEY_OF_SCRIPTS": "sk-ant-fake-scripts",
    "ANTHROPIC_AWS_API_KEY": "sk-ant-fake-key-of-aws",
    "ANTHROPIC_FOUNDRY_API_KEY": "foundry-key-for-tests",
    "AWS_BEARER_TOKEN_BEDROCK": "bedrock-key-for-tests",
    "AZURE_OPENAI_API_KEY": "azure-key-for-tests",
    "CURSOR_API_KEY": "cursor-key-for-tests",
    "CUSTOMER_ANTHROPIC_KEY": "sk-ant-fake-customer",
    "DEEPSEEK_API_KEY": "deepseek-key-for-tests",
    "GEMINI_API_KEY": "gemini-key-for-tests",
    "KIMI_API_KEY": "kimi-key-for-tests",
    "LITELLM_API_KEY": "litellm-key-for-tests",
    "MINIMAX_API_KEY": "minimax-key-for-tests",
    "MOONSHOT_API_KEY": "moonshot-key-for-tests",
    "OPENAI_API_KEY": "openai-key-for-tests",
    "OPENROUTER_API_KEY": "openrouter-key-for-tests",
    "REQUESTY_API_KEY": "requesty-key-for-tests",
    "VLLM_API_KEY": "vllm-key-for-tests",
    "XAI_API_KEY": "xai-key-for-tests",
    "ZAI_API_KEY": "zai-key-for-tests",
    "TEAM_ANTHROPIC_KEY": "sk-ant-fake-team",
    "TEAM_ZAI_KEY": "zai-key-for-tests",
    "CLIENT_LAPTOP": "laptop-secret-for-tests",
    "CLIENT_BUILD_SERVER": "build-secret-for-tests",
}
HAIKU, SONNET, OPUS = "claude-haiku-4-5", "claude-sonnet-4-5", "claude-opus-4-5"

EXPECTED = {
    ("azure", HAIKU): ["azure-classic/my-mini", "anthropic"],
    ("azure", SONNET): ["azure/my-deployment", "anthropic"],
    ("bedrock", HAIKU): ["bedrock/anthropic.claude-haiku-4-5", "anthropic"],
    ("bedrock", OPUS): ["bedrock/anthropic.claude-opus-5-5", "anthropic"],
    ("claude-aws", SONNET): ["claude-aws", "anthropic"],
    ("classes", OPUS): ["anthropic"],
    ("classes", OPUS, "--header", "x-claude-code-request-class=compaction"): ["zai/glm-5.3", "anthropic"],
    ("codex", HAIKU): ["codex/gpt-5.4-mini", "anthropic"],
    ("codex", SONNET): ["codex/gpt-6-sol", "anthropic"],
    ("composer", HAIKU): ["composer/composer-2.5-fast", "anthropic"],
    ("composer", SONNET): ["composer/composer-2.5", "anthropic"],
    ("copilot", HAIKU): ["copilot/gemini-4-argon", "anthropic"],
    ("copilot", SONNET): ["copilot/gpt-6-sol", "anthropic"],
    ("copilot", OPUS): ["copilot/claude-opus-5.5", "anthropic"],
    ("deepseek", HAIKU): ["deepseek/deepseek-flash", "deepseek-chat/deepseek-flash", "anthropic"],
    ("deepseek", SONNET): ["deepseek/deepseek-v4-pro", "deepseek-chat/deepseek-v4-pro", "anthropic"],
    ("foundry", HAIKU): ["foundry/my-haiku", "anthropic"],
    ("foundry", OPUS): ["foundry/my-opus", "anthropic"],
    ("failover", HAIKU): ["anthropic", "zai/glm-4.5-air", "openrouter/z-ai/glm-4.5-air"],
    ("gemini", HAIKU): ["gemini/gemini-3.5-flash-lite", "anthropic"],
    ("gemini", SONNET): ["gemini/gemini-3.8-flash", "anthropic"],
    ("glm", HAIKU): ["glm/glm-4.5-air", "glm-chat/glm-4.5-air", "anthropic"],
    ("glm", SONNET): ["glm/glm-5.3", "glm-chat/glm-5.3", "anthropic"],
    ("kimi", HAIKU): ["kimi/kimi-k2.5", "kimi-chat/kimi-k2.5", "anthropic"],
    ("kimi", SONNET): ["kimi-plan/kimi-for-coding", "kimi/kimi-k3", "kimi-chat/kimi-k3", "anthropic"],
    ("lm-studio", HAIKU): ["lmstudio/qwen3-coder-30b", "anthropic"],
    ("lm-studio", SONNET, "--agent", "subagent"): ["lmstudio-messages/qwen3-coder-30b", "anthropic"],
    ("local-litellm", HAIKU): ["litellm/qwen3-coder"],
    ("minimax", HAIKU): [
        "minimax/MiniMax-M2.7-highspeed",
        "minimax-chat/MiniMax-M2.7-highspeed",
        "anthropic",
    ],
    ("minimax", SONNET): ["minimax/MiniMax-M3", "minimax-chat/MiniMax-M3", "anthropic"],
    ("ollama", HAIKU): ["ollama/qwen3-coder", "anthropic"],
    ("ollama", SONNET, "--agent", "subagent"): ["ollama-messages/qwen3-coder", "anthropic"],
    ("openai", HAIKU): ["openai/gpt-6-luna", "anthropic"],
    ("openai", SONNET): ["openai/gpt-6-sol", "anthropic"],
    ("openrouter", HAIKU): ["openrouter-chat/z-ai/glm-4.7:floor", "anthropic"],
    ("openrouter", SONNET): ["openrouter/z-ai/glm-4.7", "openrouter-chat/z-ai/glm-4.7", "anthropic"],
    ("ports", OPUS): ["anthropic"],
    ("ports", OPUS, "--port", "8083"): ["kimi/kimi-k3"],
    ("ports", OPUS, "--port", "8084"): ["glm/glm-5.3"],
    ("ports", HAIKU, "--port", "8084"): ["glm/glm-4.5-air"],
    ("ports", OPUS, "--port", "8085"): ["minimax/MiniMax-M3"],
    ("ports", OPUS, "--port", "8086"): ["gemini/gemini-3.8-flash"],
    ("ports-one-key", OPUS): ["anthropic"],
    ("ports-one-key", OPUS, "--port", "8083"): ["kimi/moonshotai/kimi-k3"],
    ("ports-one-key", OPUS, "--port", "8084"): ["glm/z-ai/glm-5.3"],
    ("ports-one-key", OPUS, "--port", "8085"): ["minimax/minimax/minimax-m3"],
    ("ports-one-key", OPUS, "--port", "8086"): ["gemini/google/gemini-3.8-flash"],
    ("projects", OPUS): ["anthropic"],
    ("projects", OPUS, "--header", "x-signalbox-project=/home/me/jobs/site"): ["work"],
    ("quota-litellm", SONNET): ["anthropic", "litellm/claude-sonnet-4-6"],
    ("quota-litellm", "gemini-3.8-flash"): ["litellm"],
    ("reasoning", OPUS): ["anthropic", "zai/glm-5.3"],
    ("reasoning", SONNET): ["zai/glm-4.7", "anthropic"],
    ("requesty", HAIKU): ["requesty-chat/openai/gpt-6-luna", "anthropic"],
    ("requesty", SONNET): ["requesty/anthropic/claude-sonnet-4-5", "anthropic"],
    ("subscription", SONNET): ["anthropic", "zai/glm-4.7"],
    ("subscription", SONNET, "--port", "8083"): ["api", "subscription", "zai/glm-4.7"],
    ("team", HAIKU): ["zai/glm-4.5-air", "anthropic"],
    ("tiers", HAIKU): ["zai/glm-4.5-air", "anthropic"],
    ("tiers", SONNET): ["openrouter/z-ai/glm-4.7", "zai/glm-4.7", "anthropic"],
    ("vertex", HAIKU): ["vertex/claude-haiku-4-5@20251001", "anthropic"],
    ("vertex", SONNET): ["google", "vertex/claude-sonnet-5-5", "anthropic"],
    ("vllm", HAIKU): ["vllm/qwen3-coder", "anthropic"],
    ("vllm", SONNET, "--agent", "subagent"): ["vllm-messages/qwen3-coder", "anthropic"],
    ("xai", HAIKU): ["xai/grok-code-fast-1", "anthropic"],
    ("xai", SONNET): ["xai/grok-4.7", "anthropic"],
}
"""The targets in their order, by file, model asked for and further arguments of `signalbox explain`."""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """With every key set, in the environment and in the files that some examples read, and with the programs
    that print tokens."""
    (tmp_path / ".config/litellm").mkdir(parents=True)
    (tmp_path / ".config/litellm/key").write_text("litellm-key-for-tests\n")
    for folder in (".claude", ".claude-work"):
        (tmp_path / folder).mkdir()
        login = '{"claudeAiOauth": {"accessToken": "sk-ant-fake"}}'
        (tmp_path / folder / ".credentials.json").write_text(login)
    for name, token in (("gcloud", "ya29.google-token-for-tests"), ("gh", "gho_token-for-tests")):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\necho {token}\n")
        program.chmod(0o755)
    (tmp_path / ".codex").mkdir()
    (tmp_path / ".codex/auth.json").write_text('{"tokens": {"access_token": "codex-token-for-tests"}}')
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for name, value in {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path), **SECRETS}.items():
        monkeypatch.setenv(name, value)


def _told(name: str, *arguments: str) -> str:
    told = CliRunner().invoke(explain_command, [*arguments, "--rules", str(EXAMPLES[name])])
    assert told.exit_code == 0, told.output
    return told.stdout


def _explained(name: str, *arguments: str) -> tuple[list[str], list[str]]:
    """The targets that would be asked, and the URL of each."""
    told = _told(name, *arguments)
    assert "skipped" not in told
    asked = re.findall(r"^\d\. (\S+): POST (\S+)$", told, re.MULTILINE)
    models = re.findall(r"^   model: (\S+)$", told, re.MULTILINE)
    return [f"{name}/{model}" for (name, _), model in zip(asked, models, strict=True)], [
        url for _, url in asked
    ]


@pytest.mark.parametrize("name", EXAMPLES)
def test_there_is_nothing_to_say_against_it(name):
    errors, warnings = check(EXAMPLES[name], os.environ)
    assert errors == []
    said = [line.partition(": ")[2].partition(" (at ")[0] for line in warnings]
    usual = ("nothing listens on port ", "the terms of the ChatGPT plan are yours")
    assert [line for line in said if not line.startswith(usual)] == []


@pytest.mark.parametrize(("case", "targets"), EXPECTED.items(), ids=lambda value: " ".join(value))
def test_it_sends_what_it_says_to_whom_it_says(case, targets):
    whole = [target if "/" in target else f"{target}/{case[1]}" for target in targets]
    assert _explained(*case)[0] == whole


@pytest.mark.parametrize(
    ("name", "model", "url"),
    [
        ("azure", HAIKU, "https://my-resource.openai.azure.com/openai/deployments/my-mini/chat/completions"),
        ("azure", SONNET, "https://my-resource.openai.azure.com/openai/v1/responses"),
        ("bedrock", HAIKU, "https://bedrock-mantle.us-east-1.api.aws/anthropic/v1/messages"),
        ("claude-aws", HAIKU, "https://aws-external-anthropic.us-west-2.api.aws/v1/messages"),
        ("codex", HAIKU, "https://chatgpt.com/backend-api/codex/responses"),
        ("copilot", HAIKU, "https://api.githubcopilot.com/chat/completions"),
        ("copilot", SONNET, "https://api.githubcopilot.com/responses"),
        ("copilot", OPUS, "https://api.githubcopilot.com/v1/messages"),
        ("composer", HAIKU, "http://127.0.0.1:8787/v1/chat/completions"),
        ("deepseek", HAIKU, "https://api.deepseek.com/anthropic/v1/messages"),
        ("foundry", HAIKU, "https://my-resource.services.ai.azure.com/anthropic/v1/messages"),
        ("gemini", HAIKU, "https://generativelanguage.googleapis.com/v1beta/openai/chat/completions"),
        ("glm", HAIKU, "https://api.z.ai/api/anthropic/v1/messages"),
        ("kimi", HAIKU, "https://api.moonshot.ai/anthropic/v1/messages"),
        ("kimi", SONNET, "https://api.kimi.com/coding/v1/messages"),
        ("lm-studio", HAIKU, "http://localhost:1234/v1/chat/completions"),
        ("minimax", HAIKU, "https://api.minimax.io/anthropic/v1/messages"),
        ("ollama", HAIKU, "http://localhost:11434/v1/chat/completions"),
        ("openai", HAIKU, "https://api.openai.com/v1/responses"),
        ("xai", HAIKU, "https://api.x.ai/v1/responses"),
        ("openrouter", HAIKU, "https://openrouter.ai/api/v1/chat/completions"),
        ("openrouter", SONNET, "https://openrouter.ai/api/v1/messages"),
        ("requesty", HAIKU, "https://router.requesty.ai/v1/chat/completions"),
        ("requesty", SONNET, "https://router.requesty.ai/v1/messages"),
        ("vllm", HAIKU, "http://localhost:8000/v1/chat/completions"),
    ],
)
def test_it_asks_at_the_address_that_the_provider_documents(name, model, url):
    """By providers.md, overview, openai-chat.md, 6, and clouds.md."""
    assert _explained(name, model)[1][0].partition("?")[0] == url


@pytest.mark.parametrize(
    ("name", "dialect"),
    [
        (name, name)
        for name in [
            "azure",
            "openrouter",
            "gemini",
            "kimi",
            "glm",
            "minimax",
            "deepseek",
            "ollama",
            "vllm",
            "composer",
        ]
    ]
    + [("lm-studio", "lmstudio"), ("requesty", "generic")],
)
def test_its_chat_completions_are_spelled_as_the_provider_does(name, dialect):
    found = re.findall(r"chat completions, as (\w+) speaks them", _told(name, HAIKU) + _told(name, SONNET))
    assert set(found) == {dialect}


@pytest.mark.parametrize("name", ["openai", "azure", "xai"])
def test_its_responses_are_spelled_as_the_provider_does(name):
    assert re.findall(r"Responses, as (\w+) speaks it", _told(name, SONNET)) == [name]


def test_every_example_is_tried():
    assert {name for name, *_ in EXPECTED} == set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_readme_leads_to_it(name):
    assert f"(../examples/{name}.yaml)" in (ROOT / "docs" / "providers.md").read_text()


def test_without_its_key_a_provider_is_passed_over(monkeypatch):
    for name in SECRETS:
        monkeypatch.setenv(name, "")
    told = CliRunner().invoke(explain_command, [SONNET, "--rules", str(EXAMPLES["kimi"])]).stdout
    assert "1. anthropic: POST https://api.anthropic.com/v1/messages" in told
    assert "skipped kimi-plan/kimi-for-coding: no-key (KIMI_API_KEY is not set)" in told
