"""Removes thinking blocks of other providers from a request: only the provider that issued them accepts them.

Anthropic refuses foreign signatures with 400; without any thinking in the history it accepts the request,
as long as roles stay valid and manual mode (`thinking.type` = `enabled`) is not in the middle of a tool loop:
https://docs.claude.com/en/docs/build-with-claude/extended-thinking
"""

import re
from collections.abc import Collection, Iterator
from itertools import groupby

import msgspec

from .errors import read_error
from .issued import MARK, THINKING, ThinkingBlock, ThinkingFilter, read_block
from .json_edit import UNREADABLE, Body, BodyError, Edit, Span, delete_items, elements, members
from .turns import TurnBlock, decode_text, turns_of

PLACEHOLDER = b'{"type":"thinking","thinking":" "}'
"""Sent instead of another provider's thinking to a provider that requires some. It is unsigned, like
DeepSeek's own, and its text is a space, since an empty one may count as missing (providers.md;
translation.md, 4)."""

_INSTEAD = msgspec.json.encode([{"type": "text", "text": "(thinking omitted)"}])
_TEXT_OR_NULL = re.compile(rb'["n]')
"""How the JSON of one of these begins."""
_CLEARS_THINKING = "clear_thinking_"


class Stripped(msgspec.Struct, frozen=True):
    """The result of `without_thinking`; the edits go into `Body.edited`."""

    edits: list[Edit]
    count: int
    """Blocks dropped."""
    switched_off: bool
    """Whether thinking is switched off for this request."""


class _Typed(msgspec.Struct):
    type: str = ""


class _Message(msgspec.Struct):
    role: str = ""


_typed = msgspec.json.Decoder(_Typed)
_message = msgspec.json.Decoder(_Message)


def nothing(_: ThinkingBlock) -> bool:
    """Keeps no thinking at all."""
    return False


def without_thinking(body: Body, keeps: ThinkingFilter = nothing, *, keeps_mode: bool = False) -> Stripped:
    """Drops the thinking in assistant messages that `keeps` does not accept; unreadable values stay.

    Blank text, which the API refuses, is dropped too. An assistant message that held nothing else is dropped
    (the API merges turns of one role), or filled with a text block if it separates others: beside a `system`
    message, or as the only message. `keeps_mode`: the provider has no manual mode, so it stays on.
    """
    place = body.span("messages")
    answers = (turn for turn in turns_of(body) if turn.role == "assistant")
    thoughts = (_identity(block) for turn in answers for block in turn.blocks() if block.type in THINKING)
    if place is None or all(map(keeps, thoughts)):
        return Stripped([], 0, False)
    try:
        messages = _Messages(body.readable, place)
    except BodyError:
        return Stripped([], 0, False)
    edits, dropped = messages.without_thinking(keeps)
    loop_loses = bool(dropped) and not keeps_mode and max(dropped) >= messages.running()
    off = switched_off(body) if loop_loses else []
    return Stripped(edits + off, sum(dropped.values()), bool(off))


def _identity(block: TurnBlock) -> ThinkingBlock:
    """The same as `read_block`; with the text only if there is no signature."""
    is_text = isinstance(block.signature, str | None) and isinstance(block.data, str | None)
    if not is_text or not _TEXT_OR_NULL.match(block.thinking):
        return ThinkingBlock(block.type)
    text = None if block.signature else decode_text(block.thinking)
    return ThinkingBlock(block.type, text, block.signature, block.data)


def with_placeholders(body: Body) -> list[Edit]:
    """Edits that put a placeholder into each assistant message without thinking, unless thinking is disabled;
    unreadable values stay."""
    place = body.span("messages")
    if place is None or is_off(body):
        return []
    try:
        return list(_Messages(body.readable, place).with_placeholders())
    except BodyError:
        return []


class _Messages:
    def __init__(self, raw: bytes, place: Span) -> None:
        self._raw = raw
        self._places = elements(raw, place.value, place.end)
        self._roles = [_decode(_message, raw, at).role for at in self._places]

    def without_thinking(self, keeps: ThinkingFilter) -> tuple[list[Edit], dict[int, int]]:
        """The edits, and the number of blocks dropped by message index."""
        edits: list[Edit] = []
        dropped, emptied = {}, {}
        for index in (index for index, role in enumerate(self._roles) if role == "assistant"):
            content, places = self._content(index, MARK)
            blocks = [read_block(memoryview(self._raw)[at.value : at.end]) for at in places]
            gone = {i for i, block in enumerate(blocks) if block.is_thinking and not keeps(block)}
            blank = {i for i, block in enumerate(blocks) if block.is_blank}
            if gone:
                dropped[index] = len(gone)
            if gone and len(gone | blank) == len(blocks):
                emptied[index] = content
            else:
                edits += delete_items(places, gone | blank if gone else ())
        removed = emptied.keys() - set(self._needed(emptied))
        edits += [Edit(at.value, at.end, _INSTEAD) for index, at in emptied.items() if index not in removed]
        return edits + delete_items(self._places, removed), dropped

    def with_placeholders(self) -> Iterator[Edit]:
        for index in (index for index, role in enumerate(self._roles) if role == "assistant"):
            message = self._places[index]
            try:
                content = members(self._raw, message.value, message.end)["content"]
                if self._raw.startswith(b"[", content.value):
                    yield from self._first(content, elements(self._raw, content.value, content.end))
                elif self._raw.startswith(b'"', content.value):
                    text = self._raw[content.value : content.end]
                    new = b'[%b,{"type":"text","text":%b}]' % (PLACEHOLDER, text)
                    yield Edit(content.value, content.end, new)
            except (BodyError, KeyError):
                continue

    def _first(self, content: Span, places: list[Span]) -> Iterator[Edit]:
        """Adds thinking before these blocks if none of them is thinking."""
        blocks = [read_block(memoryview(self._raw)[at.value : at.end]) for at in places]
        thoughts = [at for at, block in zip(places, blocks, strict=True) if block.is_thinking]
        without_text = [
            at
            for at, block in zip(places, blocks, strict=True)
            if block.type == "thinking" and block.thinking is None
        ]
        yield from (Edit(at.value, at.end, PLACEHOLDER) for at in without_text)
        if not places:
            yield Edit(content.value, content.end, b"[%b]" % PLACEHOLDER)
        elif not thoughts:
            yield Edit(places[0].start, places[0].start, PLACEHOLDER + b",")

    def _content(self, index: int, mark: bytes) -> tuple[Span, list[Span]]:
        """The span of a message's content and of its blocks; no blocks if `mark` does not occur in it."""
        place = self._places[index]
        if self._raw.find(mark, place.value, place.end) < 0:
            return place, []
        try:
            content = members(self._raw, place.value, place.end)["content"]
            return content, elements(self._raw, content.value, content.end)
        except (BodyError, KeyError):
            return place, []

    def _needed(self, emptied: dict[int, Span]) -> Iterator[int]:
        """The emptied messages that must be filled, because a `system` message is next to them."""
        for index in emptied:
            if "system" in self._roles[max(index - 1, 0) : index + 2]:
                yield index
        if len(emptied) == len(self._places):
            yield 0

    def running(self) -> int:
        """Index of the first message of the current tool loop; the number of messages if there is none."""
        start = len(self._roles)
        answers = [role == "assistant" for role in self._roles]
        for is_answer, turn in groupby(reversed(range(start)), answers.__getitem__):
            if is_answer:
                start = min(turn)
            elif not any(self._has_result(index) for index in turn):
                break
        return start

    def _has_result(self, index: int) -> bool:
        _, blocks = self._content(index, b'tool_result"')
        return any(_decode(_typed, self._raw, block).type == "tool_result" for block in blocks)


_REFUSED = re.compile(
    r"signature.{0,40}thinking|thinking.{0,40}signature"
    r"|bound to a different conversation"
    r"|Expected `?thinking`? or `?redacted_thinking"
    r"|thinking`? (?:or `?redacted_thinking`? )?blocks.{0,60}cannot be modified"
    r"|cannot contain `?thinking"
    r"|thinking block must contain thinking"
    r"|thought[_ ]signature"
    r"|invalid_encrypted_content"
    r"|encrypted[ _]content\b.{0,200}(?:could not be (?:verified|decrypted|parsed)|was not issued)"
    r"|of type .?reasoning.? was provided without|without its required .?reasoning",
    re.IGNORECASE | re.DOTALL,
)
"""reference/anthropic-messages.md, section 7. Bedrock omits the backticks; `thought_signature` is Gemini's;
the last lines are of the Responses API (openai-responses.md, 2)."""


def is_refused(status: int, error: bytes) -> bool:
    """Whether an error refuses the thinking in the request: its signature, its order, or the conversation it
    is bound to."""
    if status not in (400, 422):
        return False
    report = read_error(error)
    return report.is_found and _REFUSED.search(" ".join((*report.types, report.text))) is not None


_WANTED = re.compile(
    r"(?:thinking|reasoning).{0,80}must be (?:passed|sent) back"
    r"|(?:thinking|reasoning)\w*[`'\"]? (?:is|are) missing in (?:an? |the )?assistant"
    r"|missing field [`'\"](?:thinking|reasoning_content)[`'\"]",
    re.IGNORECASE | re.DOTALL,
)
"""DeepSeek's and Kimi's endpoints for the Messages API, also behind gateways. The wordings are from
https://github.com/NousResearch/hermes-agent/issues/16748, https://github.com/leookun/cursor-byok/issues/268,
https://github.com/YishenTu/claudian/issues/759, https://github.com/agentscope-ai/QwenPaw/issues/433 and
https://github.com/esengine/DeepSeek-Reasonix/pull/8927, where placeholders were tried."""


def is_wanted_back(status: int, error: bytes) -> bool:
    """Whether an error says that assistant messages lack the thinking that the provider requires in them."""
    return status in (400, 422) and _matches(_WANTED, error)


_MISSING = re.compile(r"Expected `?thinking`? or `?redacted_thinking", re.IGNORECASE)


def is_missing(error: bytes) -> bool:
    """Whether an error says that thinking is missing in a message; the thinking sent may be valid."""
    return _matches(_MISSING, error)


def _matches(pattern: re.Pattern[str], error: bytes) -> bool:
    report = read_error(error)
    return report.is_found and pattern.search(report.text) is not None


def is_off(body: Body) -> bool:
    """Whether the request disables thinking."""
    return body.get("thinking", _Typed) == _Typed("disabled")


def switched_off(body: Body, modes: Collection[str] = ("enabled",)) -> list[Edit]:
    """Edits that remove these modes of thinking, and the clearing of thinking, which is invalid alone. Manual
    thinking is not possible after the thinking of the current tool loop was dropped."""
    mode = body.get("thinking", _Typed)
    if mode is None or mode.type not in modes:
        return []
    edits = [edit for edit in (body.drop("thinking"),) if edit]
    context = body.inner("context_management")
    clearing = context.get("edits", list[_Typed]) if context else None
    gone = {i for i, edit in enumerate(clearing or ()) if edit.type.startswith(_CLEARS_THINKING)}
    if context is None or clearing is None or not gone:
        return edits
    if len(gone) == len(clearing):
        whole = body.drop("context_management")
        return edits + ([whole] if whole else [])
    place = context.span("edits")
    assert place is not None
    others = delete_items(elements(context.readable, place.value, place.end), gone)
    return [*edits, body.set("context_management", context.edited(edits=others))]


def _decode[T](decoder: msgspec.json.Decoder[T], raw: bytes, place: Span) -> T:
    try:
        return decoder.decode(memoryview(raw)[place.value : place.end])
    except UNREADABLE:
        return decoder.type()
