"""The price in tokens of each pattern that `tokens` counts, for each tokenizer.

The prices are fitted to real tokenizers and raised by 5 % (Chinese, Japanese and Korean by 1 %), because an
estimate that is too low makes clients compact too late. How they were measured: docs/token-estimate.md.
"""

from typing import Literal

type Tokenizer = Literal["o200k", "claude", "deepseek", "qwen", "gemma", "tekken"]

TOKENIZERS: tuple[Tokenizer, ...] = ("o200k", "claude", "deepseek", "qwen", "gemma", "tekken")
DEFAULT: Tokenizer = "o200k"
"""The tokenizer of OpenAI's models, close to Llama's; used for unknown models."""

_MODELS: tuple[tuple[str, Tokenizer], ...] = (
    ("claude", "claude"),
    ("deepseek", "deepseek"),
    ("kimi", "deepseek"),
    ("moonshot", "deepseek"),
    ("qwen", "qwen"),
    ("qwq", "qwen"),
    ("glm", "qwen"),
    ("gemini", "gemma"),
    ("gemma", "gemma"),
    ("mistral", "tekken"),
    ("ministral", "tekken"),
    ("devstral", "tekken"),
    ("codestral", "tekken"),
    ("magistral", "tekken"),
    ("pixtral", "tekken"),
)
"""Parts of model names and their tokenizers; the first part that a name contains counts."""

OTHERS: dict[str, tuple[float, ...]] = {
    "words": (0.95, 1.10, 0.93, 0.96, 0.99, 0.94),  # runs of letters
    "marks": (1.07, 1.22, 1.16, 1.03, 0.97, 1.09),  # runs of punctuation
    "tabs": (0.25, 0.79, 0.38, 0.27, 0.39, 0.40),
    "simplified": (0.70, 0.94, 0.56, 0.64, 0.61, 0.94),  # Chinese characters
    "traditional": (0.93, 1.37, 0.70, 0.79, 0.73, 1.06),
}
PATTERNS: dict[bytes, tuple[float, ...]] = {
    b"aA": (2.09, 2.40, 1.97, 2.64, 1.88, 2.49),  # a capital inside of a word
    b"aAa": (-1.15, -1.24, -0.94, -1.77, -0.85, -1.51),  # camelCase
    b"AAA": (0.36, 0.68, 0.78, 0.31, 0.51, 0.75),  # words in capitals
    b"aaaaaaa": (0.47, 0.36, 0.54, 0.47, 0.31, 0.55),  # long words
    b"_": (0.18, 0.83, 0.46, 0.15, 0.91, 0.35),
    b"a.a": (-0.60, 0.18, -0.39, -0.62, 0.22, -0.52),  # a.b, a-b
    b"0": (1.41, 1.40, 1.27, 1.42, 1.43, 1.44),
    b"00": (-1.48, -1.34, -1.18, -0.47, -0.60, -0.78),
    b"000": (-0.14, -0.77, -0.74, 0.88, 0.48, 1.18),
    b"....": (0.65, 0.55, 0.82, 0.44, 0.65, 0.79),  # lines and boxes drawn with signs
    b"\n": (1.24, 1.16, 1.14, 1.21, 1.30, 1.22),
    b"\n\n": (-0.95, -0.05, -0.62, -0.81, -0.96, -0.68),
    b".\n": (-1.49, -0.04, -1.36, -1.38, -0.16, -1.50),
    b"\n ": (0.91, -0.35, 0.77, 0.93, 0.80, 0.88),  # indented lines
    b"    ": (0.62, 0.29, 0.54, 0.65, 0.57, 0.67),  # gaps as in tables
    b"        ": (-1.04, -0.39, -0.83, -1.11, -0.88, -1.11),
    b"l": (0.53, 3.06, 1.73, 1.52, 0.53, 0.81),  # a Latin letter beyond ASCII, which breaks its word in two
    b"c": (0.26, 0.63, 0.31, 0.34, 0.25, 0.30),  # Cyrillic
    b"s": (0.39, 1.38, 0.49, 0.58, 0.41, 0.38),  # other alphabets: Greek, Arabic, Hindi, Thai
    b"t": (0.93, 0.99, 0.79, 0.93, 0.59, 1.03),  # typographic signs, arrows, lines
    b"k": (0.60, 1.00, 0.56, 0.53, 0.35, 0.57),  # kana
    b"kh": (0.64, 0.68, 0.59, 0.66, 0.57, 0.41),  # kana before kanji
    b"g": (0.71, 1.48, 0.80, 0.83, 0.64, 0.67),  # hangul
    b"w": (1.06, 1.81, 0.83, 0.74, 1.18, 0.93),  # wide punctuation
    b"e": (2.34, 3.53, 2.55, 2.02, 1.41, 5.26),  # emoji
}
"""Tokens for each occurrence, in the order of `TOKENIZERS`. The patterns are of the classes of `tokens`."""


def tokenizer_of(model: str | None) -> Tokenizer:
    """The tokenizer of a model, by its name at any provider."""
    lowered = (model or "").lower()
    return next((tokenizer for part, tokenizer in _MODELS if part in lowered), DEFAULT)
