"""Which tokenizer a model counts with."""

import pytest

from signalbox.anthropic.tokenizers import DEFAULT, OTHERS, PATTERNS, TOKENIZERS, tokenizer_of


@pytest.mark.parametrize(
    ("model", "tokenizer"),
    [
        ("gpt-5", "o200k"),
        ("claude-sonnet-4-5-20250929", "claude"),
        ("anthropic/claude-opus-4.1", "claude"),
        ("glm-4.7", "qwen"),
        ("Qwen/Qwen3-Coder-480B", "qwen"),
        ("kimi-k2-thinking", "deepseek"),
        ("deepseek/deepseek-chat", "deepseek"),
        ("models/gemini-2.5-pro", "gemma"),
        ("devstral-small", "tekken"),
        ("MiniMax-M2", DEFAULT),
        ("", DEFAULT),
        (None, DEFAULT),
    ],
)
def test_the_tokenizer_follows_from_the_models_name(model, tokenizer):
    assert tokenizer_of(model) == tokenizer


def test_each_tokenizer_has_a_price_for_everything():
    assert {len(prices) for prices in (*OTHERS.values(), *PATTERNS.values())} == {len(TOKENIZERS)}
