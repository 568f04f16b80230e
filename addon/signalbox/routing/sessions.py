"""What is remembered of each conversation between its requests, in memory and bounded."""

from collections import OrderedDict

from signalbox.routing.facts import Conversation

LIMIT = 10_000
RATIO_RANGE = (0.25, 4.0)
"""Tokens per estimated one that an answer may teach; what is beyond comes from a provider that miscounts."""


class Sessions:
    """The conversations heard of lately; where there are more than `limit`, the longest silent is forgotten.

    A request without a session (None) is never remembered and nothing is known of it.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._ratios: OrderedDict[Conversation, float] = OrderedDict()
        self._refused: OrderedDict[tuple[Conversation, str], frozenset[bytes]] = OrderedDict()

    def answered(self, conversation: Conversation | None, estimated: int, input_tokens: int) -> None:
        """Notes how far the estimate for a request was from what its answer's usage says.

        `input_tokens` are all of them, cached ones too; zero (not reported) leaves the calibration as it was.
        """
        if conversation is None:
            return
        told = _ratio(estimated, input_tokens) or self._ratios.get(conversation)
        if told is None:
            return
        self._ratios[conversation] = told
        self._ratios.move_to_end(conversation)
        if len(self._ratios) > self._limit:
            self._ratios.popitem(last=False)

    def token_ratio(self, conversation: Conversation | None) -> float:
        """Tokens per estimated one of the last answer that told its usage; 1 where there was none."""
        return self._ratios.get(conversation, 1.0) if conversation else 1.0

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


def _ratio(estimated: int, input_tokens: int) -> float | None:
    if estimated <= 0 or input_tokens <= 0:
        return None
    low, high = RATIO_RANGE
    return min(max(input_tokens / estimated, low), high)
