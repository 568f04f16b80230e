"""How hard a model is asked to think."""

import pytest

from signalbox.translate.dialects import DIALECTS
from signalbox.translate.effort import thought

ON, OFF = {"type": "adaptive"}, {"type": "disabled"}


def _fields(
    dialect: str, model: str, thinking: object, effort: object = None, *, tools: bool = False
) -> object:
    config = {"effort": effort} if effort else None
    return thought(thinking, config, DIALECTS[dialect], model, tools=tools).fields


@pytest.mark.parametrize(
    ("thinking", "effort", "sent"),
    [
        (None, None, {}),
        (None, "low", {"reasoning_effort": "low"}),
        (ON, None, {"reasoning_effort": "high"}),
        (ON, "medium", {"reasoning_effort": "medium"}),
        (ON, "max", {"reasoning_effort": "xhigh"}),
        ({"type": "enabled", "budget_tokens": 1024}, None, {"reasoning_effort": "low"}),
        ({"type": "enabled", "budget_tokens": 8000}, None, {"reasoning_effort": "medium"}),
        ({"type": "enabled", "budget_tokens": 31999}, None, {"reasoning_effort": "high"}),
        ({"type": "enabled", "budget_tokens": 31999}, "low", {"reasoning_effort": "low"}),
        ({"type": "enabled", "budget_tokens": "much"}, None, {"reasoning_effort": "high"}),
        (OFF, "max", {"reasoning_effort": "none"}),
        ({"type": "between_tools"}, "max", {"reasoning_effort": "none"}),
        ("adaptive", None, {}),
        (ON, ["high"], {"reasoning_effort": "high"}),
        (ON, "none", {"reasoning_effort": "none"}),
        (ON, "extreme", {"reasoning_effort": "high"}),
    ],
    ids=str,
)
def test_the_effort_counts_before_the_budget(thinking, effort, sent):
    assert _fields("openai", "gpt-5.2", thinking, effort) == sent


@pytest.mark.parametrize(
    ("dialect", "model", "effort", "sent", "off"),
    [
        ("openai", "gpt-5", "max", {"reasoning_effort": "high"}, {"reasoning_effort": "minimal"}),
        ("openai", "gpt-5.1-codex", "max", {"reasoning_effort": "high"}, {"reasoning_effort": "none"}),
        ("openai", "o3", "xhigh", {"reasoning_effort": "high"}, {"reasoning_effort": "low"}),
        ("openai", "gpt-4.1", "high", {}, {}),
        (
            "generic",
            "openai/gpt-oss-120b",
            "minimal",
            {"reasoning_effort": "low"},
            {"reasoning_effort": "low"},
        ),
        ("generic", "llama", "high", {}, {}),
        (
            "openrouter",
            "anthropic/claude-opus-4.6",
            "max",
            {"reasoning": {"effort": "max"}},
            {"reasoning": {"effort": "none"}},
        ),
        (
            "openrouter",
            "openai/gpt-5",
            "max",
            {"reasoning": {"effort": "xhigh"}},
            {"reasoning": {"effort": "minimal"}},
        ),
        (
            "openrouter",
            "openai/gpt-5.2",
            "low",
            {"reasoning": {"effort": "low"}},
            {"reasoning": {"effort": "none"}},
        ),
        ("openrouter", "x/y", "max", {"reasoning": {"effort": "xhigh"}}, {"reasoning": {"effort": "none"}}),
        (
            "gemini",
            "gemini-3.1-pro-preview",
            "max",
            {"reasoning_effort": "high"},
            {"reasoning_effort": "low"},
        ),
        ("gemini", "gemini-3.8-flash", "low", {"reasoning_effort": "low"}, {"reasoning_effort": "minimal"}),
        ("gemini", "gemini-2.5-flash", "low", {"reasoning_effort": "low"}, {"reasoning_effort": "none"}),
        ("gemini", "gemma-3", "low", {}, {}),
        ("kimi", "kimi-k3", "medium", {"thinking": {"type": "enabled", "effort": "low"}}, {}),
        ("kimi", "kimi-k3", "max", {"thinking": {"type": "enabled", "effort": "max"}}, {}),
        ("kimi", "kimi-k2.6", "high", {"thinking": {"type": "enabled"}}, {"thinking": {"type": "disabled"}}),
        ("kimi", "moonshot-v1-8k", "high", {}, {}),
        ("glm", "glm-5.3", "high", {"thinking": {"type": "enabled"}}, {"thinking": {"type": "disabled"}}),
        (
            "minimax",
            "MiniMax-M3",
            "high",
            {"thinking": {"type": "adaptive"}},
            {"thinking": {"type": "disabled"}},
        ),
        (
            "deepseek",
            "deepseek-flash",
            "low",
            {"thinking": {"type": "enabled"}},
            {"thinking": {"type": "disabled"}},
        ),
        ("ollama", "qwen3", "high", {}, {"reasoning_effort": "none"}),
        ("ollama", "gpt-oss:20b", "max", {"reasoning_effort": "high"}, {"reasoning_effort": "low"}),
        ("vllm", "qwen3", "xhigh", {"reasoning_effort": "high"}, {"reasoning_effort": "low"}),
        ("mistral", "magistral", "high", {}, {}),
        ("composer", "gpt-5.3-codex", "high", {}, {}),
    ],
)
def test_each_dialect_has_its_spelling(dialect, model, effort, sent, off):
    assert _fields(dialect, model, ON, effort) == sent
    assert _fields(dialect, model, OFF, effort) == off


@pytest.mark.parametrize("model", ["gpt-5.4", "gpt-5.6-sol", "gpt-6-astra"])
def test_newest_models_of_openai_take_tools_only_without_thinking(model):
    for thinking in (None, ON, OFF):
        assert _fields("openai", model, thinking, "high", tools=True) == {"reasoning_effort": "none"}
    assert _fields("openai", model, ON, "high") == {"reasoning_effort": "high"}
    assert _fields("openai", "gpt-5.3", ON, "high", tools=True) == {"reasoning_effort": "high"}


@pytest.mark.parametrize(
    ("thinking", "shown"),
    [(ON, True), ({"type": "enabled"}, True), (OFF, False), (None, False), ([], False)],
    ids=str,
)
def test_thinking_is_shown_to_who_asked_for_it(thinking, shown):
    assert thought(thinking, {"effort": "high"}, DIALECTS["generic"], "m", tools=False).is_shown is shown


def test_a_model_that_cannot_stop_is_not_off():
    assert thought(OFF, None, DIALECTS["kimi"], "kimi-k2.6", tools=False).is_off
    assert not thought(OFF, None, DIALECTS["kimi"], "kimi-k3", tools=False).is_off
