"""Thinking that stands in the text itself, between `<think>` and `</think>` at its very start.

So send MiniMax, Gemini (`<thought>`) and many local servers (openai-chat.md, 3, "Reasoning fields").
"""

from signalbox.translate.chunks import Reasoning, Text

_TAGS = ("<think>", "<thought>", "<thinking>")
_LONGEST = 200
"""Characters, white space mostly, that wait for a tag."""


class ThinkTags:
    """Tells thinking from text, in pieces of any size. Text without a tag at its start stays as it is."""

    def __init__(self) -> None:
        self._held = ""
        """What may be the head of a tag."""
        self._closing = ""
        """The tag that ends the thinking that is going on."""
        self._before = True
        """Whether the text has not begun yet."""
        self._after = False
        """Whether only white space has come since the closing tag."""

    def feed(self, text: str) -> list[Text | Reasoning]:
        text, self._held = self._held + text, ""
        if self._before:
            return self._opened(text)
        if self._closing:
            return self._thought(text)
        return self._said(text)

    def end(self) -> list[Text | Reasoning]:
        """What was held: no more text comes before something else does, or at all."""
        held, self._held = self._held, ""
        self._before = self._before and not held
        if not held:
            return []
        return [Reasoning(held)] if self._closing else [Text(held)]

    def _opened(self, text: str) -> list[Text | Reasoning]:
        begun = text.lstrip()
        tag = next((tag for tag in _TAGS if begun.startswith(tag)), None)
        if tag is None and len(text) <= _LONGEST and any(tag.startswith(begun) for tag in _TAGS):
            self._held = text
            return []
        self._before = False
        if tag is None:
            return self._said(text)
        self._closing = tag.replace("<", "</")
        return self._thought(begun[len(tag) :])

    def _thought(self, text: str) -> list[Text | Reasoning]:
        thought, closed, said = text.partition(self._closing)
        if closed:
            self._closing, self._after = "", True
            return [*_reasoning(thought), *self._said(said)]
        kept = next(n for n in range(len(self._closing) - 1, -1, -1) if text.endswith(self._closing[:n]))
        self._held = text[len(text) - kept :]
        return _reasoning(text[: len(text) - kept])

    def _said(self, text: str) -> list[Text | Reasoning]:
        if self._after:
            text = text.lstrip()
            self._after = not text
        return [Text(text)] if text else []


def _reasoning(text: str) -> list[Text | Reasoning]:
    return [Reasoning(text)] if text else []
