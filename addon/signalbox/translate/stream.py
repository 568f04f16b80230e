"""An answer of chat completions on its way to Anthropic's events: steps in, events out, no I/O."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

import msgspec
from msgspec.structs import replace

from signalbox.messages.redaction import without_secrets
from signalbox.translate.calls import CallError, Calls
from signalbox.translate.chunks import (
    Begun,
    Broken,
    Done,
    Fault,
    Finish,
    Foreign,
    Fragment,
    Reasoning,
    Refusal,
    Said,
    Spent,
    Step,
    Text,
)
from signalbox.translate.details import Details
from signalbox.translate.endings import fault_of, is_cut, is_known, meaning, stop_reason, stop_sequence
from signalbox.translate.errors import anthropic_error
from signalbox.translate.halves import Halves, joined
from signalbox.translate.shapes import Object
from signalbox.translate.signature import sign
from signalbox.translate.spending import estimated, usage_of
from signalbox.translate.thinktags import ThinkTags
from signalbox.translate.writer import Event, Writer

log = logging.getLogger("signalbox")

LARGEST = 64 * 1024 * 1024
"""Characters of one answer."""
_EACH = 100
"""That each piece counts for beside its own."""
_LONGEST = 64
"""Characters of a `finish_reason`."""
_EMPTY = b'{"error":{"type":"overloaded_error","message":"the answer is empty"}}'
"""As a provider might say it: most give nothing where they cannot keep up."""


class Stream:
    """Feed it steps, then call `end`; what they give is to be taken after each.

    `names` are tool names as sent to what the client calls them, `seed` is the random part of all ids,
    `stops` are the stop sequences that were asked for.
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
        stops: tuple[str, ...] = (),
        secrets: tuple[str, ...] = (),
    ) -> None:
        self.error: bytes | None = None
        """The error that the provider reported, in its own words, less the `secrets`."""
        self.cut = ""
        """Why the answer ended too early, for people."""
        self._provider = provider
        self._model = model
        self._request_id = request_id
        self._stops = stops
        self._secrets = secrets
        self._shows_thinking = shows_thinking
        self._writer = Writer(f"msg_{seed}", model, self._signature)
        self._calls = Calls(self._writer, names, seed, provider=provider, signed=signed)
        self._tags = ThinkTags()
        self._halves: defaultdict[type[Step], Halves] = defaultdict(Halves)
        """Of text and of thinking."""
        self._said: defaultdict[type[Step], list[str]] = defaultdict(list)
        """All text of each kind, to know what a whole message says again."""
        self._waiting: list[Text | Reasoning] = []
        """What came while a call was in progress."""
        self._blank = ""
        """White space that a text block would begin with: alone it is none."""
        self._payload: Object = {}
        """What the open block of thinking is signed with."""
        self._details = Details()
        """Those of the open block."""
        self._foreign: Foreign | None = None
        """What came that is no chunk: the last with a message, else the first."""
        self._finish = self._stop = ""
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
        try:
            self._calls.release()
        except CallError as error:
            self._cut(str(error))
        is_foreign = self._foreign is not None and (self._foreign.says or not self._writer.begun)
        if self._finish or is_foreign or (self._calls.all_over and not self._writer.open):
            self.take([Done()])
        else:
            self._cut("the stream ended in the middle")

    def _take(self, step: Step) -> None:
        match step:
            case Begun(model):
                self._writer.begin(model)
            case Text(text):
                self._grow(step, text)
                self._spread(self._tags.feed(self._halves[Text].feed(text)))
            case Refusal(text):
                self._refused = True
                self._grow(step, text)
                self._spread([Text(self._halves[Text].feed(text))])
            case Reasoning(text, key, details):
                self._size += sum(
                    len(value) for one in details for value in one.values() if isinstance(value, str)
                )
                self._grow(step, text)
                if self._shows_thinking:
                    self._spread([Reasoning(self._halves[Reasoning].feed(text), key, details)])
                else:
                    self._calls.carry(details)
            case Fragment():
                self._grow(step, step.arguments)
                self._call(step)
            case Said(steps):
                for one in list(self._unsaid(steps)):
                    self._take(one)
            case Finish():
                self._end(step)
            case Spent(usage):
                self._usage = usage_of(usage) or self._usage
            case Fault(body):
                self._fail(body)
            case Foreign():
                self._foreign = step if step.says or self._foreign is None else self._foreign
            case Broken():
                self._cut("a chunk is not JSON")
            case Done():
                self._close()

    def _unsaid(self, steps: Iterable[Step]) -> Iterator[Step]:
        """What a whole message adds to what was said: the rest of a text, or of a call, that goes on."""
        said = {kind: joined("".join(pieces)) for kind, pieces in self._said.items()}
        whole: defaultdict[type[Step], str] = defaultdict(str)
        for step in steps:
            if isinstance(step, Text | Refusal | Reasoning):
                whole[type(step)] += step.text
        skipped = {
            kind: len(text) if joined(whole[kind]).startswith(text) else len(whole[kind])
            for kind, text in said.items()
        }
        for step in steps:
            if type(step) not in said:
                if not (isinstance(step, Reasoning) and Text in said):  # maybe it stood in the text
                    yield step
            elif isinstance(step, Text | Refusal | Reasoning):
                text = step.text[skipped[type(step)] :]
                skipped[type(step)] = max(skipped[type(step)] - len(step.text), 0)
                if text:
                    yield replace(step, text=text)
            elif isinstance(step, Fragment) and (rest := self._calls.unsaid(step)):
                yield rest

    def _end(self, finish: Finish) -> None:
        """Why it ends; more may come all the same."""
        reason = finish.reason[:_LONGEST]
        self._finish, self._finished = reason, True
        self._stop = stop_sequence(reason, finish.stop, self._stops) or self._stop
        if not is_known(reason):
            shown = without_secrets(reason.encode(), self._secrets).decode()
            log.debug("%s: unknown finish_reason %r, taken for %s", self._provider, shown, meaning(reason))
        if kind := fault_of(reason):
            error = {"type": kind, "code": reason, "message": f"the answer ended with {reason}"}
            self._fail(msgspec.json.encode({"error": error}))

    def _grow(self, step: Step, text: str) -> None:
        self._said[type(step)].append(text if not isinstance(step, Fragment) else "")
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
        said = anthropic_error(200, body, self._provider, self._model)
        self._writer.error(said.type, said.message, self._request_id)

    # text and thinking

    def _spread(self, said: Iterable[Text | Reasoning]) -> None:
        """Writes it, or keeps it until the call in progress is over: one block is open at a time."""
        said = list(said)
        if said:
            self._calls.release()
        if self._calls.running:
            self._waiting += said
            return
        for one in said:
            if isinstance(one, Text):
                self._say(one.text)
            elif self._shows_thinking:
                self._think(one)

    def _say(self, text: str) -> None:
        if not text:
            return
        if self._blank or self._writer.open != "text":
            text = self._blank + text
            self._blank = "" if text.strip() else text
        if not self._blank:
            self._writer.text(text)

    def _think(self, thought: Reasoning) -> None:
        if self._writer.open != "thinking":
            self._writer.close()
            self._payload, self._details = {"key": thought.key} if thought.key else {}, Details()
        self._blank = ""
        self._details.add(thought.details)
        self._writer.thinking(thought.text)

    def _signature(self, text: str) -> str:
        return sign(self._provider, text, self._payload | self._details.payload())

    def _held_back(self) -> list[Text | Reasoning]:
        """Text that waited for more of a tag or of a character."""
        return [*self._tags.feed(self._halves[Text].end()), *self._tags.end()]

    # tool calls

    def _call(self, fragment: Fragment) -> None:
        self._spread(self._held_back())
        self._blank = ""
        self._calls.take(fragment)
        self._catch_up()

    def _catch_up(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._spread(waiting)

    # the end

    def _close(self) -> None:
        self._over = True
        foreign = self._foreign.body if self._foreign else _EMPTY
        if self._foreign and self._foreign.says and not self._finish:
            self._fail(foreign)
            return
        self._spread(self._held_back())
        self._blank = ""
        self._calls.finish(is_cut=is_cut(self._finish))
        self._catch_up()
        self._carry_late()
        stopped, called = bool(self._stop), self._writer.calls > 0
        reason = stop_reason(self._finish, called=called, refused=self._refused, stopped=stopped)
        if reason == "end_turn" and not self._writer.blocks:
            self._fail(_EMPTY if self._writer.begun else foreign)
        else:
            stop = self._stop if reason == "stop_sequence" else None
            self._writer.stop(reason, self._usage or estimated(self._characters), stop)

    def _carry_late(self) -> None:
        """State that came when the ids of all calls were out already: a block without text carries it."""
        if (late := self._calls.left()) and self._writer.calls:
            self._writer.close()
            self._payload, self._details = late, Details()
            self._writer.thinking("")
