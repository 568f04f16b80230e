"""Which provider speaks which dialect, and what rows may say."""

import re
from hashlib import sha256
from typing import get_args

import pytest

from signalbox.config.rules import ChatDialect
from signalbox.openai.dialects import DIALECTS, dialect_of, matches_any, sees


@pytest.mark.parametrize(
    ("host", "port", "name"),
    [
        ("api.openai.com", 443, "openai"),
        ("API.OpenAI.com", 443, "openai"),
        ("myname.openai.azure.com", 443, "azure"),
        ("myname.services.ai.azure.com", 443, "azure"),
        ("openrouter.ai", 443, "openrouter"),
        ("generativelanguage.googleapis.com", 443, "gemini"),
        ("api.moonshot.ai", 443, "kimi"),
        ("api.kimi.com", 443, "kimi"),
        ("api.z.ai", 443, "glm"),
        ("open.bigmodel.cn", 443, "glm"),
        ("api.minimax.io", 443, "minimax"),
        ("api.deepseek.com", 443, "deepseek"),
        ("api.mistral.ai", 443, "mistral"),
        ("localhost", 11434, "ollama"),
        ("127.0.0.1", 8000, "vllm"),
        ("localhost", 1234, "lmstudio"),
        ("127.0.0.1", 8787, "composer"),
        ("api-for-cursor.standardagents.ai", 443, "composer"),
        ("router.requesty.ai", 443, "generic"),
        ("localhost", 4000, "generic"),
        ("notapi.openai.com.example.com", 443, "generic"),
        ("notopenrouter.ai", 443, "generic"),
    ],
)
def test_the_host_selects_the_dialect(host, port, name):
    assert dialect_of(None, host, port).name == name


def test_the_user_knows_better():
    assert dialect_of("mistral", "api.openai.com", 443).name == "mistral"


def test_there_is_a_row_for_each_name():
    assert set(DIALECTS) == set(get_args(ChatDialect.__value__))


@pytest.mark.parametrize("row", DIALECTS.values(), ids=DIALECTS)
def test_a_row_agrees_with_itself(row):
    made = row.new_id.format(sha256(b"x").hexdigest())
    assert re.fullmatch(row.call_id, made)
    assert not re.fullmatch(row.call_id, "x" * 1000), "ids of any length"
    assert re.fullmatch(row.tool_name, f"_{'x' * 54}_{'0' * 8}")


def test_globs_are_of_models_in_lower_case():
    assert matches_any("MiniMax-M3", ("minimax-m[3-9]*",))
    assert matches_any("openai/o3-mini", ("o[1-9]*", "*/o[1-9]*"))
    assert not matches_any("olmo-3", ("o[1-9]*",))
    assert not matches_any("anything", ())


@pytest.mark.parametrize(
    ("dialect", "model", "seeing"),
    [
        ("kimi", "kimi-k2.6", True),
        ("kimi", "k3", True),
        ("kimi", "moonshot-v1-8k", False),
        ("glm", "glm-4.5v", True),
        ("glm", "glm-5.3", False),
        ("openrouter", "z-ai/glm-5.3", False),
        ("openrouter", "z-ai/glm-5.3-flash", True),
        ("openrouter", "z-ai/glm-4.5v:free", True),
        ("openrouter", "moonshotai/kimi-k2", False),
        ("openrouter", "moonshotai/kimi-k2.6", True),
        ("openrouter", "minimax/minimax-m2.7", False),
        ("openrouter", "anthropic/claude-opus-4.6", True),
        ("vllm", "zai-org/GLM-4.5V-FP8", True),
        ("vllm", "deepseek-ai/DeepSeek-V3.2", False),
        ("generic", "deepseek/deepseek-v4-flash-vision-exp", True),
        ("ollama", "deepseek-r1:32b", False),
        ("ollama", "gemma3", True),
    ],
)
def test_a_model_sees_or_does_not_wherever_it_is_served(dialect, model, seeing):
    assert sees(model, DIALECTS[dialect].images) is seeing
