"""Tool calls in progress: which call a fragment belongs to, and which call the client sees now.

Providers number, name and cut their calls in many ways (openai-chat.md, 3, "Tool-call deltas"). The first
call that is not complete streams to the client as it comes in; the others wait for their turn.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from signalbox.anthropic.json_edit import whole_characters
from signalbox.anthropic.writer import Writer
from signalbox.openai.chunks import Fragment
from signalbox.openai.ids import AnswerIds, ReasoningDetails
from signalbox.openai.incoming import Object

_MOST_CALLS = 1000
"""Calls of one answer."""
_EMPTY = re.compile(r"\A(?:\s*\{\s*\})+(?=\s*\{)")
"""Empty objects before the arguments that replace them."""
_NOT_JSON = "[The arguments of the call to {} were not valid JSON and were left out.]"


class ToolCall:
    def __init__(self, name: str) -> None:
        self.id = ""
        self.name = name
        self.signature = ""
        self.halves = SurrogateJoiner(escaped=True)
        """For surrogate pairs in the arguments."""
        self.arguments = Arguments()
        self.waiting = ""
        """Arguments that were not sent to the client yet."""
        self.sent = 0
        """Characters of the arguments that were sent."""
        self.started = False


class CallError(Exception):
    """A fragment or an ending that cannot become a tool call. The text is for people."""


class ToolCalls:
    """Writes the calls of one answer.

    `names` maps tool names as sent to the client's names. With `signed` calls a signature may follow its
    call, so each call waits until something else follows. The id of a call carries what its `provider` wants
    back with it: its own id, Gemini's signature, and the details given to `carry` since the last call.
    Without `streams` arguments are written when they are whole, so that a fault in them spoils no answer.
    """

    def __init__(
        self,
        writer: Writer,
        names: Mapping[str, str],
        seed: str,
        *,
        provider: str,
        signed: bool,
        streams: bool = True,
    ) -> None:
        self._writer = writer
        self._names = names
        self._ids = AnswerIds(seed, provider)
        self._signed = signed
        self._streams = streams
        self._signature = ""
        """A signature that came before its call."""
        self._details = ReasoningDetails()
        self._by_index: dict[int, ToolCall] = {}
        self._by_id: dict[str, ToolCall] = {}
        self._last: ToolCall | None = None
        self._over: list[ToolCall] = []
        self._queue: list[ToolCall] = []
        """Calls that are not complete, in the order in which the client gets them."""

    @property
    def in_progress(self) -> bool:
        """Whether the client has the start of a call but not its end."""
        return bool(self._queue) and self._queue[0].started

    @property
    def is_empty(self) -> bool:
        """True while there are no calls to write."""
        return not self._queue

    @property
    def all_complete(self) -> bool:
        """Whether there are calls, and all are complete."""
        return bool(self._over) and not self._queue

    def carry(self, details: Iterable[Object]) -> None:
        """Adds details of thinking that is not shown; the id of the next call carries them."""
        self._details.add(details)

    def left(self) -> Object:
        """The signature and details that no call carries, as the payload for a thinking block; then
        forgotten."""
        left = self._carried(self._signature)
        self._signature = ""
        return left

    def take(self, fragment: Fragment) -> None:
        """Adds a fragment and writes what can be written. Raises CallError."""
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

    def remainder(self, whole: Fragment) -> Fragment | None:
        """The part of a call in a whole message that its fragments did not have; None if there is none.

        `index` is the position of the call in that message.
        """
        place, calls = max(whole.index or 0, 0), [*self._over, *self._queue]
        if place >= len(calls):
            return whole
        call = calls[place]
        if whole.id and whole.id != call.id:
            call = self._by_id.get(whole.id, call)
        so_far, rest = call.arguments, ""
        if so_far.is_placeholder:
            rest = whole.arguments
        elif not so_far.complete and whole.arguments.startswith(so_far.text):
            rest = whole.arguments[len(so_far.text) :]
        if not rest or call not in self._queue:
            return None
        index = next((index for index, one in self._by_index.items() if one is call), None)
        return Fragment(index, call.id, "" if call.name else whole.name, rest)

    def release(self) -> None:
        """Writes what can be written, since text or thinking follows the calls. Raises CallError."""
        self._write(is_all=True)

    def _write(self, *, is_all: bool) -> None:
        while self._queue and self._flush(self._queue[0], is_all=is_all):
            self._end(self._queue.pop(0))

    def finish(self, *, is_cut: bool) -> None:
        """Writes all calls to their end. With `is_cut` the answer reached its limit, so that arguments may be
        incomplete: they are written as they are. Raises CallError."""
        queue, self._queue = self._queue, []
        for call in queue:
            if not call.name:
                self._drop(call)
            elif (finalized := call.arguments.finalized()) is not None:
                self._begin(call)
                self._writer.arguments(finalized[call.sent :])
            elif is_cut:
                self._begin(call)
                self._writer.arguments(call.arguments.text[call.sent :])
            else:
                self._without_arguments(call)
            self._end(call)

    def _call(self, fragment: Fragment) -> ToolCall:
        """The call that a fragment belongs to; a new one if it begins one."""
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
            found = self._last if self._continues_last(fragment) else None
        return found or self._new()

    def _continues_last(self, fragment: Fragment) -> bool:
        """Whether a fragment without index and known id belongs to the last call."""
        last = self._last
        if last is None or (fragment.id and last.id):
            return False
        return not fragment.name or (
            fragment.name == (last.name or fragment.name) and not last.arguments.complete
        )

    def _new(self, name: str = "") -> ToolCall:
        if len(self._queue) + len(self._over) >= _MOST_CALLS:
            raise CallError("there are too many tool calls")
        call = ToolCall(name)
        call.signature, self._signature = self._signature, ""
        self._queue.append(call)
        return call

    def _sign(self, signature: str) -> None:
        """Stores a signature that came alone: for the last call if its id was not sent, else for the next."""
        if self._last is not None and not self._last.started and not self._last.signature:
            self._last.signature = signature
        else:
            self._signature = signature

    def _add(self, call: ToolCall, fragment: Fragment) -> None:
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

    def _feed(self, call: ToolCall, text: str) -> tuple[str, str]:
        own, rest = call.arguments.feed(text)
        call.waiting += own
        if call.arguments.is_runaway:
            raise CallError("the arguments of a tool call do not end")
        return own, rest

    def _next(self, call: ToolCall, name: str) -> ToolCall:
        """The call that a second object in the arguments of one call belongs to: the next call without
        arguments, the same call if its first object was a placeholder, or a new call."""
        waits = call in self._queue
        later = self._queue[self._queue.index(call) + 1 :] if waits else self._queue
        if (following := next((one for one in later if not one.arguments.started), None)) is not None:
            return following
        if waits and not call.sent and call.arguments.is_placeholder:
            call.arguments, call.waiting = Arguments(), ""
            return call
        if not call.name:
            raise CallError("a tool call has no name")
        return self._new(name)

    def _flush(self, call: ToolCall, *, is_all: bool) -> bool:
        """Writes what has come of the first call. Returns whether the call is complete; with `is_all` an
        empty object counts as complete, else it may be a placeholder."""
        arguments = call.arguments
        if not call.started and not self._may_start(call):
            return False
        if arguments.complete and arguments.finalized() is None:
            self._without_arguments(call)
            return True
        self._begin(call)
        if not (is_all or call.sent) and arguments.is_placeholder:
            return False
        if not (self._streams or arguments.complete):
            return False
        self._writer.arguments(call.waiting)
        call.sent += len(call.waiting)
        call.waiting = ""
        return arguments.complete

    def _may_start(self, call: ToolCall) -> bool:
        """Whether the call can be written before its end: its arguments must begin as an object."""
        arguments = call.arguments
        if not call.name or (self._signed and not arguments.complete):
            return False
        return arguments.is_object or bool(call.id and not arguments.started)

    def _begin(self, call: ToolCall) -> None:
        if not call.started:
            call.started = True
            id = self._ids.given(call.id, call.name, self._carried(call.signature))
            self._writer.call(id, self._names.get(call.name, call.name))

    def _carried(self, signature: str) -> Object:
        """Signature and details for the next id or thinking block; each is carried once."""
        extra: Object = {"google": signature} if signature else {}
        if self._details.is_opaque:
            extra |= self._details.payload()
        self._details = ReasoningDetails()
        return extra

    def _without_arguments(self, call: ToolCall) -> None:
        """Writes the call with `{}`, so that the tool reports the missing input, and adds a text note."""
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

    def _drop(self, call: ToolCall) -> None:
        """Raises CallError for a call without a name, unless it only repeats the arguments of another one."""
        text = call.arguments.text.strip()
        if text and all(text != one.arguments.text for one in self._over):
            raise CallError("a tool call has no name")

    def _end(self, call: ToolCall) -> None:
        self._over.append(call)
        if call.started:
            self._writer.close()


_STRING = re.compile(r'(?:[^"\\]++|\\.)*+', re.DOTALL)
"""Up to the closing quote, or to a backslash that is the last character so far."""
_BETWEEN = re.compile(r'[^"{}\[\]]*+')
_CONTROL = re.compile(r"[\x00-\x1f]")
_CLOSES = {"{": "}", "[": "]"}
_NOTHING = ("", "null", '""', "[]")
"""Texts that mean no arguments; `[]` is PHP's, whose empty maps and lists are the same."""
_NOTHING_YET = re.compile(r'\s*+(?:\{\s*+\}?|null|""|\[\])?\s*+\Z')
_MOST_SPACE = 500
"""White space between two tokens; an answer with more never ends (openai-chat.md, 3, Copilot)."""


class Arguments:
    """The arguments of one tool call, a JSON object in text, as they come in (translation.md, 7).

    Harmless faults are repaired: raw control characters in strings, text after the object, brackets that are
    not closed, an object inside a string. A string that was cut in the middle is never repaired: half a
    command must not run.
    """

    def __init__(self) -> None:
        self.complete = False
        """Whether the object has ended."""
        self.is_runaway = False
        """Whether there is so much white space that the arguments will not end."""
        self._pieces: list[str] = []
        self._open: list[str] = []
        """The open brackets, outermost first."""
        self._in_string = False
        self._escaped = False
        self._strings: list[tuple[int, int]] = []
        """Spans of the strings in the last fragment."""
        self._space = 0
        self._size = 0
        self._first = ""

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    @property
    def is_object(self) -> bool:
        return self._first == "{"

    @property
    def started(self) -> bool:
        return bool(self._first)

    @property
    def is_placeholder(self) -> bool:
        """Whether they are empty so far: an empty object may be replaced by later arguments."""
        return self._size <= 2 * _MOST_SPACE and _NOTHING_YET.match(self.text) is not None

    def feed(self, text: str) -> tuple[str, str]:
        """The part of `text` that belongs to the object, repaired, and the rest from the next object on."""
        if self.complete:
            return "", _another(text)
        if self.started and not self.is_object and text.lstrip()[:1] == "{" and self.is_placeholder:
            self._pieces.clear()
            self._size, self._first = 0, ""
        if not self._first:
            begun = text.lstrip()
            self._count_space(text[: len(text) - len(begun)])
            text, self._first = begun, begun[:1]
        if not self.is_object:
            self._keep(text)
            return "", ""
        end = self._scan(text)
        own, rest = (text, "") if end < 0 else (text[:end], _another(text[end:]))
        own = self._escaped_controls(own)
        self._keep(own)
        return own, rest

    def _keep(self, text: str) -> None:
        self._pieces.append(text)
        self._size += len(text)

    def finalized(self) -> str | None:
        """The whole arguments as JSON, at the end of the answer; None if they are not an object."""
        text = self.text
        if text.strip() in _NOTHING:
            return "{}"
        if self.is_object:
            if not self.complete and text.rstrip()[-1:] in ('"', "}", "]"):
                text += "".join(_CLOSES[bracket] for bracket in reversed(self._open))
            return text if isinstance(_parsed(text), dict) else None
        value = _parsed(text)
        inner = _parsed(value) if isinstance(value, str) else None
        return value if isinstance(value, str) and isinstance(inner, dict) else None

    def _scan(self, text: str) -> int:
        """Offset of the end of the object in `text`, or -1."""
        self._strings.clear()
        at = 0
        while at < len(text):
            if self._in_string:
                at = self._string(text, at)
                continue
            end = _match_end(_BETWEEN, text, at)
            self._count_space(text[at:end])
            if end == len(text):
                break
            at, self._space = end + 1, 0
            if text[end] == '"':
                self._in_string = True
            elif text[end] in _CLOSES:
                self._open.append(text[end])
            elif self._open:
                self._open.pop()
                if not self._open:
                    self.complete = True
                    return at
        return -1

    def _string(self, text: str, at: int) -> int:
        """Reads to the end of a string; returns the offset after it."""
        start = at
        if self._escaped:
            self._escaped = False
            at += 1
        end = _match_end(_STRING, text, at)
        self._strings.append((start, end))
        if end == len(text):
            return end
        self._escaped = text[end] == "\\"
        self._in_string = self._escaped
        return end + 1

    def _count_space(self, between: str) -> None:
        blank = len(between) - len(between.rstrip())
        self._space = blank + (self._space if blank == len(between) else 0)
        self.is_runaway = self.is_runaway or self._space > _MOST_SPACE

    def _escaped_controls(self, text: str) -> str:
        """`text` with the control characters in its strings escaped."""
        pieces: list[str] = []
        at = 0
        for start, end in self._strings:
            pieces += text[at:start], _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text[start:end])
            at = end
        return "".join((*pieces, text[at:]))


def _match_end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found else at


def _another(text: str) -> str:
    """The text if another object begins in it, else empty."""
    text = text.lstrip()
    return text if text.startswith("{") else ""


def _parsed(text: str) -> Any:
    """None where it is not JSON."""
    try:
        return json.loads(text, parse_constant=_refused)
    except (ValueError, RecursionError):
        return None


def _refused(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


_HIGH = re.compile(r"[\ud800-\udbff]\Z")
_ESCAPES = re.compile(
    r"(?<!\\)((?:\\\\)*+)"
    r"(?:(\\u[dD][89abAB][\da-fA-F]{2}\\u[dD][c-fC-F][\da-fA-F]{2})|\\u[dD][89a-fA-F][\da-fA-F]{2})"
)
"""In JSON: the escapes of a whole surrogate pair (second group), or of one half."""
_OPEN_ESCAPE = re.compile(
    r"(?<!\\)(?:\\\\)*+"
    r"(\\(?:u(?:[dD](?:[c-fC-F][\da-fA-F]?|[89abAB](?:[\da-fA-F](?:[\da-fA-F]"
    r"(?:\\(?:u(?:[dD](?:[c-fC-F][\da-fA-F]?)?)?)?)?)?)?)?)?)?)\Z"
)
"""At the end of JSON: the beginning of an escaped surrogate pair."""


_TAIL = 100
"""Characters at the end of a piece that are searched for the start of an escaped pair."""


class SurrogateJoiner:
    """Joins surrogate pairs that a provider cut into two pieces of a text.

    JSON writes characters beyond U+FFFF as two escapes (https://www.rfc-editor.org/rfc/rfc8259#section-7). A
    server that cuts its text by UTF-16 units sends them apart; a half alone cannot be written as UTF-8. With
    `escaped` the text is JSON, where halves may be escapes too.
    """

    def __init__(self, *, escaped: bool = False) -> None:
        self._open = (_HIGH, _OPEN_ESCAPE) if escaped else (_HIGH,)
        self._held = ""

    @property
    def holds(self) -> bool:
        """Whether the next piece may complete a pair."""
        return bool(self._held)

    def feed(self, text: str) -> str:
        """The text without a half at its end, which is held until the next piece."""
        if not text:
            return ""
        text, self._held = self._held + text, ""
        for pattern in self._open:
            if found := pattern.search(text, max(len(text) - _TAIL, 0)):
                at = found.start(found.lastindex or 0)
                text, self._held = text[:at], text[at:] + self._held
        return self._whole(text)

    def end(self) -> str:
        """What is still held, at the end of the text."""
        text, self._held = self._held, ""
        return self._whole(text)

    def _whole(self, text: str) -> str:
        text = whole_characters(text)
        if len(self._open) > 1 and "\\u" in text:
            text = _ESCAPES.sub(lambda found: found[0] if found[2] else f"{found[1]}\\ufffd", text)
        return text
