"""Paths of the Messages API, and the token counts of an answer."""

from collections.abc import Mapping
from dataclasses import dataclass

MESSAGES = "/v1/messages"
COUNT_TOKENS = "/v1/messages/count_tokens"
MODELS = "/v1/models"
ANTHROPIC_VERSION = "2023-06-01"
"""The only value of the header `anthropic-version`."""


_MOST = 10**12

TOKEN_FIELDS = (
    "input_tokens",
    "output_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
)
"""The four counts, as Anthropic names them."""


@dataclass(slots=True)
class Usage:
    """The four counts; `input_tokens` is without cached ones."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_creation_1h_input_tokens: int = 0
    """Of `cache_creation_input_tokens`, those whose cache entry lives for an hour."""

    def take(self, usage: Mapping[str, object]) -> None:
        """Takes over counts that are not zero: providers report at the start, at the end, or both."""
        for name in TOKEN_FIELDS:
            if tokens := token_count(usage.get(name)):
                setattr(self, name, tokens)
        match usage.get("cache_creation"):
            case {"ephemeral_1h_input_tokens": count_1h} if tokens := token_count(count_1h):
                self.cache_creation_1h_input_tokens = tokens

    @property
    def total_input(self) -> int:
        return self.input_tokens + self.cache_creation_input_tokens + self.cache_read_input_tokens


def token_count(value: object) -> int:
    """A number of tokens; anything that is not a plausible one counts as zero."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return int(value) if 0 < value < _MOST else 0
