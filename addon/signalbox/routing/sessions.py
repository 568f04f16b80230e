"""State of conversations between their requests, in memory and bounded."""

from collections import OrderedDict
from collections.abc import Collection

from signalbox.anthropic.tokenizers import tokenizer_of
from signalbox.anthropic.tokens import Measured
from signalbox.routing.facts import DEFAULT_CALIBRATION, Calibration, ConversationId
from signalbox.routing.threads import Owner

LIMIT = 10_000
MOST_REFUSED = 10_000
"""Thinking blocks that one provider refused and that are remembered, of one conversation or of any."""
RATIO_RANGE = (0.25, 4.0)
"""The range of the ratio of reported to estimated tokens; a provider with a ratio beyond it miscounts."""


class Sessions:
    """Recent conversations. Beyond `limit`, the one that was used least recently is forgotten.

    For a request without a session (None) only refused thinking is stored.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._calibrations: OrderedDict[ConversationId, Calibration] = OrderedDict()
        self._refused: OrderedDict[tuple[ConversationId | None, str], dict[bytes, None]] = OrderedDict()
        """Digests, the latest last. A dictionary that is stored does not change any more: requests are
        prepared in threads too."""
        self._refused_kin: OrderedDict[tuple[ConversationId, str], frozenset[str]] = OrderedDict()
        self._owners: OrderedDict[tuple[ConversationId | None, str], Owner] = OrderedDict()
        self._wanting: OrderedDict[tuple[ConversationId, str], None] = OrderedDict()

    def record_usage(
        self, conversation: ConversationId | None, model: str | None, measured: Measured, input_tokens: int
    ) -> None:
        """Store what was counted in a request, and how far the estimate for it was from what the answer of
        this model says.

        `input_tokens` are all of them, cached ones too; zero (not reported) leaves tokenizer and ratio as
        they were.
        """
        if conversation is None:
            return
        tokenizer = tokenizer_of(model)
        ratio = _ratio(measured.tokens(tokenizer), input_tokens)
        calibration = Calibration(tokenizer, ratio) if ratio else self.calibration(conversation)
        self._calibrations[conversation] = calibration._replace(measured=measured)
        self._calibrations.move_to_end(conversation)
        if len(self._calibrations) > self._limit:
            self._calibrations.popitem(last=False)

    def calibration(self, conversation: ConversationId | None) -> Calibration:
        """The calibration from the last answer that reported its usage."""
        return (
            self._calibrations.get(conversation, DEFAULT_CALIBRATION) if conversation else DEFAULT_CALIBRATION
        )

    def refused_thinking(
        self, conversation: ConversationId | None, provider: str, digests: frozenset[bytes]
    ) -> None:
        """Stores which thinking blocks of this conversation a provider refused: they are not sent there
        again. None: they are not sent there in any conversation."""
        if not digests:
            return
        known = self._refused.pop((conversation, provider), {})
        latest = [*(digest for digest in known if digest not in digests), *digests][-MOST_REFUSED:]
        self._refused[conversation, provider] = dict.fromkeys(latest)
        if len(self._refused) > self._limit:
            self._refused.popitem(last=False)

    def refused(self, conversation: ConversationId | None, provider: str) -> Collection[bytes]:
        """The digests of those blocks, and of those that are not sent in any conversation."""
        of_any = self._refused.get((None, provider), {})
        own = self._refused.get((conversation, provider), {}) if conversation else {}
        return of_any | own if of_any and own else of_any or own

    def refused_thinking_of(
        self, conversation: ConversationId | None, provider: str, issuers: frozenset[str]
    ) -> None:
        """Stores that a provider refused the thinking of these other providers: none of theirs is sent there
        again in this conversation."""
        if conversation is not None:
            known = self._refused_kin.pop((conversation, provider), frozenset())
            self._refused_kin[conversation, provider] = known | issuers
            if len(self._refused_kin) > self._limit:
                self._refused_kin.popitem(last=False)

    def refused_kin(self, conversation: ConversationId | None, provider: str) -> frozenset[str]:
        """The names of those other providers."""
        return self._refused_kin.get((conversation, provider), frozenset()) if conversation else frozenset()

    def answered_by(self, conversation: ConversationId | None, message: str, owner: Owner) -> None:
        """Stores which provider gave an answer, by the answer's id: a thread continues only there."""
        self._owners[conversation, message] = owner
        self._owners.move_to_end((conversation, message))
        if len(self._owners) > self._limit:
            self._owners.popitem(last=False)

    def owner(self, conversation: ConversationId | None, message: str) -> Owner | None:
        """The owner of an answer; None if unknown."""
        return self._owners.get((conversation, message))

    def wanted_thinking(self, conversation: ConversationId | None, provider: str) -> None:
        """Stores that a provider requires thinking with each answer of this conversation."""
        if conversation is not None:
            self._wanting[conversation, provider] = None
            self._wanting.move_to_end((conversation, provider))
            if len(self._wanting) > self._limit:
                self._wanting.popitem(last=False)

    def wants_thinking(self, conversation: ConversationId | None, provider: str) -> bool:
        """Whether the provider requires thinking in this conversation."""
        return conversation is not None and (conversation, provider) in self._wanting


def _ratio(estimated: int, input_tokens: int) -> float | None:
    if estimated <= 0 or input_tokens <= 0:
        return None
    low, high = RATIO_RANGE
    return min(max(input_tokens / estimated, low), high)
