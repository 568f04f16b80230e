"""What is remembered of each conversation between its requests, in memory and bounded."""

from collections import OrderedDict

import msgspec

from signalbox.routing.facts import Conversation

LIMIT = 10_000
PER_BYTE_RANGE = (0.05, 1.5)
"""Tokens per byte that an answer's usage may teach; what is beyond comes from a provider that miscounts."""


class _Memory(msgspec.Struct, frozen=True):
    last: str
    """The provider that answered last."""
    providers: frozenset[str]
    """All that ever answered."""
    per_byte: float | None


class Sessions:
    """The conversations heard of lately; where there are more than `limit`, the longest silent is forgotten.

    A request without a session (None) is never remembered and nothing is known of it.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._memories: OrderedDict[Conversation, _Memory] = OrderedDict()

    def answered(
        self, conversation: Conversation | None, provider: str, body_bytes: int, input_tokens: int
    ) -> None:
        """Notes an answer, and what its usage says about the size of the request it answers.

        `input_tokens` are all of them, cached ones too; zero (not reported) leaves the calibration as it was.
        """
        if conversation is None:
            return
        known = self._memories.pop(conversation, None)
        self._memories[conversation] = _Memory(
            last=provider,
            providers=(known.providers if known else frozenset()) | {provider},
            per_byte=_per_byte(body_bytes, input_tokens) or (known.per_byte if known else None),
        )
        if len(self._memories) > self._limit:
            self._memories.popitem(last=False)

    def per_byte(self, conversation: Conversation | None) -> float | None:
        """Tokens per byte of the last answer that told its usage."""
        known = self._memories.get(conversation) if conversation else None
        return known.per_byte if known else None

    def foreign_thinking(self, conversation: Conversation | None, provider: str, is_anthropic: bool) -> bool:
        """Whether thinking in the history may be another provider's, so that `provider` must not get it.

        Anthropic itself refuses a signature that is not its own, however long ago it was issued, while
        what it issued before the router started is still good there.
        """
        known = self._memories.get(conversation) if conversation else None
        if known is None:
            return not is_anthropic
        return bool(known.providers - {provider}) if is_anthropic else known.last != provider


def _per_byte(body_bytes: int, input_tokens: int) -> float | None:
    if body_bytes <= 0 or input_tokens <= 0:
        return None
    low, high = PER_BYTE_RANGE
    return min(max(input_tokens / body_bytes, low), high)
