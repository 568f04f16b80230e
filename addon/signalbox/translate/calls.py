"""Tool calls in progress: whose fragment is whose, and which call the client sees now.

Providers number, name and cut their calls in many ways (openai-chat.md, 3, "Tool-call deltas"). The first
call that is not over streams to the client as it comes in; the others wait for their turn.
"""

import re
from collections.abc import Iterable, Mapping

from signalbox.translate.arguments import Arguments
from signalbox.translate.callids import CallIds
from signalbox.translate.chunks import Fragment
from signalbox.translate.details import Details
from signalbox.translate.halves import Halves
from signalbox.translate.shapes import Object
from signalbox.translate.writer import Writer

_MOST = 1000
"""Calls of one answer."""
_EMPTY = re.compile(r"\A(?:\s*\{\s*\})+(?=\s*\{)")
"""Placeholders before what they stand for."""
_NOT_JSON = "[The arguments of the call to {} were not valid JSON and were left out.]"


class Call:
    def __init__(self, name: str) -> None:
        self.id = ""
        self.name = name
        self.signature = ""
        self.halves = Halves(escaped=True)
        """Of the arguments."""
        self.arguments = Arguments()
        self.waiting = ""
        """What of the arguments the client has not got yet."""
        self.sent = 0
        """Characters of them that it has."""
        self.started = False


class CallError(Exception):
    """What cannot be told to the client as a call. Its text is for people."""


class Calls:
    """`names` are tool names as sent to what the client calls them. Where calls are `signed`, what belongs
    to one may come after it: each waits until something else follows.

    The id of a call carries what its `provider` wants back with it: its own id, Gemini's signature, and what
    `carry` was given since the last one.
    """

    def __init__(
        self, writer: Writer, names: Mapping[str, str], seed: str, *, provider: str, signed: bool
    ) -> None:
        self._writer = writer
        self._names = names
        self._ids = CallIds(seed, provider)
        self._signed = signed
        self._signature = ""
        """One that came before its call."""
        self._details = Details()
        self._by_index: dict[int, Call] = {}
        self._by_id: dict[str, Call] = {}
        self._last: Call | None = None
        self._over: list[Call] = []
        self._queue: list[Call] = []
        """Calls that are not over, in order."""

    @property
    def running(self) -> bool:
        """Whether the client sees a call whose arguments are not complete."""
        return bool(self._queue) and self._queue[0].started

    @property
    def all_over(self) -> bool:
        """Whether there are some, and nothing of any is missing."""
        return bool(self._over) and not self._queue

    def carry(self, details: Iterable[Object]) -> None:
        """Thinking that is not shown: the next call that is begun carries it."""
        self._details.add(details)

    def left(self) -> Object:
        """What no call carries, as the signature of a block of thinking carries it."""
        left = self._carried(self._signature)
        self._signature = ""
        return left

    def take(self, fragment: Fragment) -> None:
        """Raises CallError."""
        if fragment == Fragment(signature=fragment.signature):
            self._sign(fragment.signature)
            return
        call = self._call(fragment)
        call.id = call.id or fragment.id
        call.name = call.name or fragment.name
        call.signature = call.signature or fragment.signature
        if fragment.id:
            self._by_id.setdefault(fragment.id, call)
        if fragment.index is not None:
            self._by_index[fragment.index] = call
        self._last = call
        if fragment.arguments:
            self._add(call, fragment)
        if not self._signed:
            self._write(is_all=False)

    def unsaid(self, whole: Fragment) -> Fragment | None:
        """What a call of a whole message adds to the one that came in pieces; None where that is nothing.

        `index` is its place in that message.
        """
        place, calls = max(whole.index or 0, 0), [*self._over, *self._queue]
        if place >= len(calls):
            return whole
        call = calls[place]
        if whole.id and whole.id != call.id:
            call = self._by_id.get(whole.id, call)
        said, rest = call.arguments, ""
        if said.is_placeholder:
            rest = whole.arguments
        elif not said.complete and whole.arguments.startswith(said.text):
            rest = whole.arguments[len(said.text) :]
        if not rest or call not in self._queue:
            return None
        index = next((index for index, one in self._by_index.items() if one is call), None)
        return Fragment(index, call.id, "" if call.name else whole.name, rest)

    def release(self) -> None:
        """Writes what can be written now that something else follows. Raises CallError."""
        self._write(is_all=True)

    def _write(self, *, is_all: bool) -> None:
        while self._queue and self._advance(self._queue[0], is_all=is_all):
            self._end(self._queue.pop(0))

    def finish(self, *, is_cut: bool) -> None:
        """Writes the rest. `is_cut` says that the answer reached its limit, maybe within the arguments: then
        they stay as they are. Raises CallError."""
        queue, self._queue = self._queue, []
        for call in queue:
            if not call.name:
                self._drop(call)
            elif (settled := call.arguments.settled()) is not None:
                self._begin(call)
                self._writer.arguments(settled[call.sent :])
            elif is_cut:
                self._begin(call)
                self._writer.arguments(call.arguments.text[call.sent :])
            else:
                self._without_arguments(call)
            self._end(call)

    def _call(self, fragment: Fragment) -> Call:
        """The one that a fragment belongs to, a new one where it begins one."""
        if fragment.index is not None:
            found = self._by_index.get(fragment.index)
            if found is not None and fragment.id and found.id not in ("", fragment.id):
                found = self._by_id.get(fragment.id)
            elif (
                found is not None
                and not fragment.id
                and fragment.name not in ("", found.name or fragment.name)
            ):
                found = None
        elif fragment.id and fragment.id in self._by_id:
            found = self._by_id[fragment.id]
        else:
            found = self._last if self._goes_on(fragment) else None
        return found or self._new()

    def _goes_on(self, fragment: Fragment) -> bool:
        """Whether a fragment without index, of no id known, is of the last call."""
        last = self._last
        if last is None or (fragment.id and last.id):
            return False
        return not fragment.name or (
            fragment.name == (last.name or fragment.name) and not last.arguments.complete
        )

    def _new(self, name: str = "") -> Call:
        if len(self._queue) + len(self._over) >= _MOST:
            raise CallError("there are too many tool calls")
        call = Call(name)
        call.signature, self._signature = self._signature, ""
        self._queue.append(call)
        return call

    def _sign(self, signature: str) -> None:
        """A signature that came alone: of the last call if its id is not out yet, else of the next."""
        if self._last is not None and not self._last.started and not self._last.signature:
            self._last.signature = signature
        else:
            self._signature = signature

    def _add(self, call: Call, fragment: Fragment) -> None:
        halves = call.halves
        own, rest = self._feed(call, halves.feed(fragment.arguments))
        name = "" if own else fragment.name
        rest = _EMPTY.sub("", rest)
        while rest and rest.strip() != call.arguments.text:
            call, name = self._next(call, name), ""
            call.halves = halves
            if fragment.index is not None:
                self._by_index[fragment.index] = call
            _, rest = self._feed(call, rest)
        self._last = call

    def _feed(self, call: Call, text: str) -> tuple[str, str]:
        own, rest = call.arguments.feed(text)
        call.waiting += own
        if call.arguments.endless:
            raise CallError("the arguments of a tool call do not end")
        return own, rest

    def _next(self, call: Call, name: str) -> Call:
        """Whose a second object in the place of one is: of the next call without any, of the same one where
        the first was but a placeholder, or of a new one."""
        waits = call in self._queue
        later = self._queue[self._queue.index(call) + 1 :] if waits else self._queue
        if (following := next((one for one in later if not one.arguments.begun), None)) is not None:
            return following
        if waits and not call.sent and call.arguments.is_placeholder:
            call.arguments, call.waiting = Arguments(), ""
            return call
        if not call.name:
            raise CallError("a tool call has no name")
        return self._new(name)

    def _advance(self, call: Call, *, is_all: bool) -> bool:
        """Writes what has come of the first call; tells whether it is over. `is_all`: no more of it comes if
        it is whole."""
        arguments = call.arguments
        if not call.started and not self._may_start(call):
            return False
        if arguments.complete and arguments.settled() is None:
            self._without_arguments(call)
            return True
        self._begin(call)
        if not (is_all or call.sent) and arguments.is_placeholder:
            return False
        self._writer.arguments(call.waiting)
        call.sent += len(call.waiting)
        call.waiting = ""
        return arguments.complete

    def _may_start(self, call: Call) -> bool:
        """What does not begin as an object has to be looked at as a whole."""
        arguments = call.arguments
        if not call.name or (self._signed and not arguments.complete):
            return False
        return arguments.is_object or bool(call.id and not arguments.begun)

    def _begin(self, call: Call) -> None:
        if not call.started:
            call.started = True
            id = self._ids.given(call.id, call.name, self._carried(call.signature))
            self._writer.call(id, self._names.get(call.name, call.name))

    def _carried(self, signature: str) -> Object:
        """What is to go back; each part of it once."""
        extra: Object = {"google": signature} if signature else {}
        if self._details.is_opaque:
            extra |= self._details.payload()
        self._details = Details()
        return extra

    def _without_arguments(self, call: Call) -> None:
        """The model is told by its tool what is missing, and the reader by a note why."""
        if call.sent:
            raise CallError(f"the arguments of the call to {call.name} are not valid JSON")
        note = _NOT_JSON.format(self._names.get(call.name, call.name))
        if not call.started:
            self._writer.text(note)
            self._begin(call)
            self._writer.arguments("{}")
        else:
            self._writer.arguments("{}")
            self._writer.text(note)

    def _drop(self, call: Call) -> None:
        """A call without a name, unless it only says again what another one said."""
        text = call.arguments.text.strip()
        if text and all(text != one.arguments.text for one in self._over):
            raise CallError("a tool call has no name")

    def _end(self, call: Call) -> None:
        self._over.append(call)
        if call.started:
            self._writer.close()
