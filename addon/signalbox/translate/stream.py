"""An answer of chat completions on its way to Anthropic's events: steps in, events out, no I/O."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from signalbox.messages.errors import without_secrets
from signalbox.translate.calls import CallError, Calls
from signalbox.translate.chunks import (
    Begun,
    Broken,
    Done,
    Fault,
    Finish,
    Fragment,
    Reasoning,
    Refusal,
    Spent,
    Step,
    Text,
)
from signalbox.translate.endings import fault_of, is_cut, stop_reason
from signalbox.translate.failures import failure
from signalbox.translate.shapes import Object
from signalbox.translate.signature import sign
from signalbox.translate.spending import estimated, usage_of
from signalbox.translate.thinktags import ThinkTags
from signalbox.translate.writer import Event, Writer

LARGEST = 64 * 1024 * 1024
"""Characters of one answer."""
_EACH = 100
"""That each piece counts for beside its own."""
_EMPTY = b'{"error":{"type":"overloaded_error","message":"the answer is empty"}}'
"""As a provider might say it: most give nothing where they cannot keep up."""


class Stream:
    """Feed it steps, then call `end`; what they give is to be taken after each.

    `names` are tool names as sent to what the client calls them, `seed` is the random part of all ids.
    An answer without anything in it is an error, unless its `finish_reason` tells why (translation.md, 8).
    """

    def __init__(
        self,
        *,
        names: Mapping[str, str],
        shows_thinking: bool,
        signed: bool,
        provider: str,
        model: str,
        seed: str,
        request_id: str,
        secrets: tuple[str, ...] = (),
    ) -> None:
        self.error: bytes | None = None
        """The error that the provider reported, in its own words, less the `secrets`."""
        self.cut = ""
        """Why the answer ended too early, for people."""
        self._provider = provider
        self._model = model
        self._request_id = request_id
        self._secrets = secrets
        self._shows_thinking = shows_thinking
        self._writer = Writer(f"msg_{seed}", model, self._signature)
        self._calls = Calls(self._writer, names, seed, signed=signed)
        self._tags = ThinkTags()
        self._waiting: list[Text | Reasoning] = []
        """What came while a call was in progress."""
        self._blank = ""
        """White space that a text block would begin with: alone it is none."""
        self._key = ""
        self._details: list[Object] = []
        self._finish = ""
        self._finished = False
        """Whether nothing was said since the `finish_reason`."""
        self._refused = False
        self._usage: dict[str, int] = {}
        self._characters = 0
        self._size = 0
        self._over = False

    @property
    def over(self) -> bool:
        """Whether all was said that matters: not each provider says `[DONE]`."""
        return self._over or (self._finished and bool(self._usage))

    @property
    def finished(self) -> bool:
        """Whether it has ended, and at the most its usage is still to come."""
        return self._over or self._finished

    def taken(self) -> list[Event]:
        return self._writer.taken()

    def take(self, steps: Iterable[Step]) -> None:
        for step in steps:
            if self._over:
                return
            try:
                self._take(step)
            except CallError as error:
                self._cut(str(error))

    def end(self) -> None:
        """The provider sends no more: fine after a `finish_reason`, whether `[DONE]` was said or not, and
        after a call that is whole."""
        if self._over:
            return
        if self._finish or (self._calls.all_over and not self._writer.open):
            self.take([Done()])
        else:
            self._cut("the stream ended in the middle")

    def _take(self, step: Step) -> None:
        match step:
            case Begun(model):
                self._writer.begin(model)
            case Text(text):
                self._grow(text)
                self._spread(self._tags.feed(text))
            case Refusal(text):
                self._refused = True
                self._grow(text)
                self._spread([Text(text)])
            case Reasoning(text, _, details):
                self._size += sum(
                    len(value) for one in details for value in one.values() if isinstance(value, str)
                )
                self._grow(text)
                self._spread([step])
            case Fragment():
                self._grow(step.arguments)
                self._call(step)
            case Finish(reason):
                self._finish, self._finished = reason, True
                if kind := fault_of(reason):
                    error = {"type": kind, "code": reason, "message": f"the answer ended with {reason}"}
                    self._fail(msgspec.json.encode({"error": error}))
            case Spent(usage):
                self._usage = usage_of(usage) or self._usage
            case Fault(body):
                self._fail(body)
            case Broken():
                self._cut("a chunk is not JSON")
            case Done():
                self._close()

    def _grow(self, text: str) -> None:
        self._finished = self._finished and not text
        self._characters += len(text)
        self._size += len(text) + _EACH
        if self._size > LARGEST:
            self._cut("the answer is too large")

    def _cut(self, why: str) -> None:
        self.cut = why
        self._over = True

    def _fail(self, body: bytes) -> None:
        self.error = body = without_secrets(body, self._secrets)
        self._over = True
        said = failure(200, body, self._provider, self._model)
        self._writer.error(said.type, said.message, self._request_id)

    # text and thinking

    def _spread(self, said: Iterable[Text | Reasoning]) -> None:
        """Writes it, or keeps it until the call in progress is over: one block is open at a time."""
        if self._calls.running:
            self._waiting += said
            return
        for one in said:
            self._calls.release()
            if isinstance(one, Text):
                self._say(one.text)
            elif self._shows_thinking:
                self._think(one)

    def _say(self, text: str) -> None:
        if self._blank or self._writer.open != "text":
            text = self._blank + text
            self._blank = "" if text.strip() else text
        if not self._blank:
            self._writer.text(text)

    def _think(self, thought: Reasoning) -> None:
        if self._writer.open != "thinking":
            self._writer.close()
            self._key, self._details = thought.key, []
        self._blank = ""
        for detail in thought.details:
            _merge(self._details, detail)
        self._writer.thinking(thought.text)

    def _signature(self, text: str) -> str:
        payload: dict[str, Any] = {"key": self._key} if self._key else {}
        if self._details:
            payload["reasoning_details"] = self._details
        return sign(self._provider, text, payload)

    # tool calls

    def _call(self, fragment: Fragment) -> None:
        self._spread(self._tags.end())
        self._blank = ""
        self._calls.take(fragment)
        self._catch_up()

    def _catch_up(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._spread(waiting)

    # the end

    def _close(self) -> None:
        self._over = True
        self._spread(self._tags.end())
        self._blank = ""
        self._calls.finish(is_cut=is_cut(self._finish))
        self._catch_up()
        reason = stop_reason(self._finish, called=self._writer.calls > 0, refused=self._refused)
        if reason == "end_turn" and not self._writer.blocks:
            self._fail(_EMPTY)
        else:
            self._writer.stop(reason, self._usage or estimated(self._characters))


def _merge(details: list[Object], detail: Object) -> None:
    """OpenRouter streams each entry of `reasoning_details` in pieces, which its `index` tells apart."""
    last = details[-1] if details else {}
    if detail.get("index") is None or any(last.get(name) != detail.get(name) for name in ("index", "type")):
        details.append(dict(detail))
        return
    for name, value in detail.items():
        if name in ("text", "summary", "data") and isinstance(value, str) and isinstance(last.get(name), str):
            last[name] += value
        elif value is not None:
            last[name] = value
