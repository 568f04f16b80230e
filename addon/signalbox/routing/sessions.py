"""What is remembered of each conversation between its requests, in memory and bounded."""

from collections import OrderedDict

from signalbox.routing.facts import Conversation

LIMIT = 10_000
PER_BYTE_RANGE = (0.05, 1.5)
"""Tokens per byte that an answer's usage may teach; what is beyond comes from a provider that miscounts."""


class Sessions:
    """The conversations heard of lately; where there are more than `limit`, the longest silent is forgotten.

    A request without a session (None) is never remembered and nothing is known of it.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._per_byte: OrderedDict[Conversation, float] = OrderedDict()
        self._refused: OrderedDict[tuple[Conversation, str], frozenset[bytes]] = OrderedDict()

    def answered(self, conversation: Conversation | None, body_bytes: int, input_tokens: int) -> None:
        """Notes what an answer's usage says about the size of the request it answers.

        `input_tokens` are all of them, cached ones too; zero (not reported) leaves the calibration as it was.
        """
        if conversation is None:
            return
        told = _per_byte(body_bytes, input_tokens) or self._per_byte.get(conversation)
        if told is None:
            return
        self._per_byte[conversation] = told
        self._per_byte.move_to_end(conversation)
        if len(self._per_byte) > self._limit:
            self._per_byte.popitem(last=False)

    def per_byte(self, conversation: Conversation | None) -> float | None:
        """Tokens per byte of the last answer that told its usage."""
        return self._per_byte.get(conversation) if conversation else None

    def refused_thinking(
        self, conversation: Conversation | None, provider: str, digests: frozenset[bytes]
    ) -> None:
        """Notes which thinking blocks of this conversation a provider refused: it is not sent them again."""
        if conversation is not None and digests:
            known = self._refused.pop((conversation, provider), frozenset())
            self._refused[conversation, provider] = known | digests
            if len(self._refused) > self._limit:
                self._refused.popitem(last=False)

    def refused(self, conversation: Conversation | None, provider: str) -> frozenset[bytes]:
        """The digests of those blocks."""
        return self._refused.get((conversation, provider), frozenset()) if conversation else frozenset()


def _per_byte(body_bytes: int, input_tokens: int) -> float | None:
    if body_bytes <= 0 or input_tokens <= 0:
        return None
    low, high = PER_BYTE_RANGE
    return min(max(input_tokens / body_bytes, low), high)
