"""Turns an answer of chat completions into events of the Messages API: steps in, events out, no I/O.

Also: the counts of a `usage` object, and thinking inside the text.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator

import msgspec
from msgspec.structs import replace

from signalbox.anthropic.answer_facts import AnswerFacts
from signalbox.anthropic.api import token_count
from signalbox.anthropic.issued import SEARCHED_HERE
from signalbox.anthropic.json_edit import whole_characters
from signalbox.anthropic.redaction import without_secrets
from signalbox.anthropic.sse import parse_bare_event
from signalbox.anthropic.translated_reader import AnswerContext
from signalbox.anthropic.writer import LARGEST, MessagesEvent, web_search_result
from signalbox.openai.chunks import (
    ChoiceStarted,
    Citation,
    EndOfStream,
    ErrorChunk,
    Finish,
    Foreign,
    Fragment,
    FullMessage,
    Malformed,
    Reasoning,
    Refusal,
    Step,
    TextPiece,
    UsageReported,
    chunk_steps,
    parse_chunk,
    parse_object,
    plain_text,
)
from signalbox.openai.errors import EMPTY_ANSWER, anthropic_error
from signalbox.openai.finish import fault_of, finish_meaning, is_cut, is_known, stop_reason, stop_sequence
from signalbox.openai.ids import ReasoningDetails, sign
from signalbox.openai.incoming import Object, as_object
from signalbox.openai.tool_calls import CallError, SurrogateJoiner, ToolCalls

log = logging.getLogger("signalbox")

_EACH = 100
"""Characters that each piece counts for besides its own, so that many small ones reach the limit too."""
_LONGEST = 64
"""Characters of a `finish_reason`."""


class ChatStream:
    """An `anthropic.translated_reader.AnswerStream`. `take` takes steps.

    `stops` are the stop sequences of the request, `searched` is the query if the provider was asked to search
    the web, `signed`: calls need the signatures of the provider. Errors are noted in `facts` (`cut`,
    `provider_error`). An empty answer is an error, unless its `finish_reason` explains it (translation.md,
    8).
    """

    def __init__(
        self,
        facts: AnswerFacts,
        context: AnswerContext,
        *,
        signed: bool = False,
        stops: tuple[str, ...] = (),
        searched: str = "",
        largest: int = LARGEST,
    ) -> None:
        """An answer of more than `largest` characters is cut."""
        self.facts = facts
        self._context = context
        self._stops = stops
        self._searched = searched
        self._found: dict[str, str] = {}
        """Titles of the pages that the search found, by URL."""
        self._largest = largest
        self._writer = context.writer(facts, self._signature)
        self._calls = ToolCalls(
            self._writer,
            context.names,
            context.seed,
            provider=context.provider,
            signed=signed,
            streams=context.wants_stream,
        )
        self._tags = ThinkTags()
        self._halves: defaultdict[type[Step], SurrogateJoiner] = defaultdict(SurrogateJoiner)
        """One for text, one for thinking."""
        self._texts: defaultdict[type[Step], list[str]] = defaultdict(list)
        """All text of each kind so far, to recognise what a whole message repeats."""
        self._waiting: list[TextPiece | Reasoning] = []
        """Text and thinking that came while a call was in progress."""
        self._payload: Object = {}
        """The payload for the signature of the open thinking block."""
        self._details = ReasoningDetails()
        """The details of the open thinking block."""
        self._foreign: Foreign | None = None
        """The last object that is no chunk and has a message, else the first that is no chunk."""
        self._finish = self._stop = ""
        self._finished = False
        """True if nothing has come since the `finish_reason`."""
        self._refused = False
        self._usage: dict[str, int] = {}
        self._search_count = 0
        self._characters = 0
        self._size = 0
        self._over = False

    @property
    def over(self) -> bool:
        """True once nothing that matters can follow. Not every provider sends `[DONE]`."""
        return self._over or (self._finished and bool(self._usage))

    @property
    def finished(self) -> bool:
        """True once the answer has ended; only its usage may still follow."""
        return self._over or self._finished

    def drain(self) -> list[MessagesEvent]:
        return self._writer.drain()

    def event(self, block: bytes) -> None:
        """See `AnswerStream.event`."""
        text = plain_text(block)
        if text is None or not self.add_text(text):
            self.take(parse_chunk(parse_bare_event(block)))

    def last_event(self, block: bytes) -> None:
        """See `AnswerStream.last_event`."""
        self.take(step for step in parse_chunk(parse_bare_event(block)) if not isinstance(step, Malformed))

    def whole(self, body: bytes) -> None:
        """See `AnswerStream.whole`."""
        value = parse_object(body)
        if value is None:
            self.facts.cut = "the answer is not JSON"
        elif "choices" in value:
            self.take((*chunk_steps(value, body), EndOfStream()))
        else:
            self.take([ErrorChunk(body)])

    def add_text(self, text: str) -> bool:
        """Adds a piece of text, without halves of surrogate pairs, to the open text block. Returns False, and
        does nothing, if `take` must decide what the piece is and to which block it belongs."""
        if (
            self._over
            or self._writer.open != "text"
            or not (self._calls.is_empty and self._tags.is_text)
            or self._halves[TextPiece].holds
        ):
            return False
        self._texts[TextPiece].append(text)
        self._finished = self._finished and not text
        self._characters += len(text)
        self._size += len(text) + _EACH
        if self._size > self._largest:
            self._cut("the answer is too large")
        elif text:
            self._writer.text(text)
        return True

    def take(self, steps: Iterable[Step]) -> None:
        for step in steps:
            if self._over:
                return
            try:
                self._take(step)
            except CallError as error:
                self._cut(str(error))

    def end(self) -> None:
        """The provider's stream has ended. It is complete after a `finish_reason`, with or without `[DONE]`,
        or after a complete call; else it is noted as cut."""
        if self._over:
            return
        try:
            self._calls.release()
        except CallError as error:
            self._cut(str(error))
        is_foreign = self._foreign is not None and (self._foreign.has_message or not self._writer.begun)
        if self._finish or is_foreign or (self._calls.all_complete and not self._writer.open):
            self.take([EndOfStream()])
        else:
            self._cut("the stream ended in the middle")

    def _take(self, step: Step) -> None:
        match step:
            case ChoiceStarted(model):
                self._writer.begin(model)
            case TextPiece(text):
                self._measure(step, text)
                self._write(self._tags.feed(self._halves[TextPiece].feed(text)))
            case Refusal(text):
                self._refused = True
                self._measure(step, text)
                self._write([TextPiece(self._halves[TextPiece].feed(text))])
            case Reasoning(text, key, details):
                self._size += sum(
                    len(value) for one in details for value in one.values() if isinstance(value, str)
                )
                self._measure(step, text)
                if self._context.shows_thinking:
                    self._write([Reasoning(self._halves[Reasoning].feed(text), key, details)])
                else:
                    self._calls.carry(details)
            case Citation(url, title):
                self._size += len(url) + len(title) + _EACH
                self._found[url] = self._found.get(url) or title
            case Fragment():
                self._measure(step, step.arguments)
                self._call(step)
            case FullMessage(steps):
                for one in list(self._remainder(steps)):
                    self._take(one)
            case Finish():
                self._end(step)
            case UsageReported(usage):
                self._usage = chat_usage(usage) or self._usage
                searches = _count(as_object(usage.get("server_tool_use")), "web_search_requests")
                self._search_count = searches or self._search_count
            case ErrorChunk(body):
                self._fail(body)
            case Foreign():
                self._foreign = step if step.has_message or self._foreign is None else self._foreign
            case Malformed():
                self._cut("a chunk is not JSON")
            case EndOfStream():
                self._close()

    def _remainder(self, steps: Iterable[Step]) -> Iterator[Step]:
        """The part of a whole message that its pieces did not have: the rest of a text or of a call."""
        sent = {kind: whole_characters("".join(pieces)) for kind, pieces in self._texts.items()}
        whole: defaultdict[type[Step], str] = defaultdict(str)
        for step in steps:
            if isinstance(step, TextPiece | Refusal | Reasoning):
                whole[type(step)] += step.text
        skipped = {
            kind: len(text) if whole_characters(whole[kind]).startswith(text) else len(whole[kind])
            for kind, text in sent.items()
        }
        for step in steps:
            if type(step) not in sent:
                if not (isinstance(step, Reasoning) and TextPiece in sent):  # the text may have held it
                    yield step
            elif isinstance(step, TextPiece | Refusal | Reasoning):
                text = step.text[skipped[type(step)] :]
                skipped[type(step)] = max(skipped[type(step)] - len(step.text), 0)
                if text:
                    yield replace(step, text=text)
            elif isinstance(step, Fragment) and (rest := self._calls.remainder(step)):
                yield rest

    def _end(self, finish: Finish) -> None:
        """Notes why the answer ends. More steps may follow."""
        reason = finish.reason[:_LONGEST]
        self._finish, self._finished = reason, True
        self._stop = stop_sequence(reason, finish.stop, self._stops) or self._stop
        if not is_known(reason):
            shown = without_secrets(reason.encode(), self._context.secrets).decode()
            log.debug(
                "%s: unknown finish_reason %r, read as %s",
                self._context.provider,
                shown,
                finish_meaning(reason),
            )
        if kind := fault_of(reason):
            error = {"type": kind, "code": reason, "message": f"the answer ended with {reason}"}
            self._fail(msgspec.json.encode({"error": error}))

    def _measure(self, step: Step, text: str) -> None:
        self._texts[type(step)].append(text if not isinstance(step, Fragment) else "")
        self._finished = self._finished and not text
        self._characters += len(text)
        self._size += len(text) + _EACH
        if self._size > self._largest:
            self._cut("the answer is too large")

    def _cut(self, why: str) -> None:
        self.facts.cut = why
        self._over = True

    def _fail(self, body: bytes) -> None:
        self.facts.usage.take(self._usage)  # a provider may bill what has failed
        self.facts.provider_error = body = without_secrets(body, self._context.secrets)
        self._over = True
        to = self._context
        error = anthropic_error(200, body, to.provider, to.model, estimate=to.estimate)
        self._writer.error(error.type, error.message, self._context.request_id)

    # text and thinking

    def _write(self, pieces: Iterable[TextPiece | Reasoning]) -> None:
        """Writes the pieces, or keeps them until the call in progress is complete: one block is open at a
        time."""
        pieces = list(pieces)
        if pieces:
            self._calls.release()
        if self._calls.in_progress:
            self._waiting += pieces
            return
        for piece in pieces:
            if isinstance(piece, TextPiece):
                self._writer.text(piece.text)
            elif self._context.shows_thinking:
                self._write_thinking(piece)

    def _write_thinking(self, thought: Reasoning) -> None:
        if self._writer.open != "thinking":
            self._writer.close()
            self._payload, self._details = {"key": thought.key} if thought.key else {}, ReasoningDetails()
        self._details.add(thought.details)
        self._writer.thinking(thought.text)

    def _signature(self, text: str) -> str:
        return sign(self._context.provider, text, self._payload | self._details.payload())

    def _held_back(self) -> list[TextPiece | Reasoning]:
        """Text that was held because it may be half of a tag or of a character."""
        return [*self._tags.feed(self._halves[TextPiece].end()), *self._tags.end()]

    # tool calls

    def _call(self, fragment: Fragment) -> None:
        self._write(self._held_back())
        self._calls.take(fragment)
        self._catch_up()

    def _catch_up(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._write(waiting)

    # the end

    def _close(self) -> None:
        self._over = True
        foreign = self._foreign.body if self._foreign else EMPTY_ANSWER
        if self._foreign and self._foreign.has_message and not self._finish:
            self._fail(foreign)
            return
        self._write(self._held_back())
        self._calls.finish(is_cut=is_cut(self._finish))
        self._catch_up()
        self._carry_late()
        stopped, called = bool(self._stop), self._writer.calls > 0
        reason = stop_reason(self._finish, called=called, refused=self._refused, stopped=stopped)
        if reason == "end_turn" and not self._writer.blocks:
            self._fail(EMPTY_ANSWER if self._writer.begun else foreign)
        else:
            stop = self._stop if reason == "stop_sequence" else None
            self.facts.usage.take(self._usage)
            usage = self._usage | self._searches()
            self._writer.stop(reason, usage, stop, characters=self._characters)

    def _searches(self) -> Object:
        """Writes the search and what it found, as far as the answer names it; counts for the usage."""
        if not self._searched or not (self._found or self._search_count):
            return {}
        id = f"{SEARCHED_HERE}{self._context.seed}"
        results = [web_search_result(url, title) for url, title in self._found.items()]
        self._writer.search(id, {"query": self._searched})
        self._writer.search_result(id, results)
        return {"server_tool_use": {"web_search_requests": self._search_count or 1}}

    def _carry_late(self) -> None:
        """Writes an empty thinking block for a signature that came after the ids of all calls were sent."""
        if (late := self._calls.left()) and self._writer.calls:
            self._writer.close()
            self._payload, self._details = late, ReasoningDetails()
            self._writer.thinking("")


# what it cost (translation.md, 5; openai-chat.md, 4)


def chat_usage(usage: Object) -> dict[str, int]:
    """The four counts of a `usage` object; empty if it holds none.

    `prompt_tokens` includes cached tokens, except at some providers that also use Anthropic's names. Some
    count reasoning in `total_tokens` alone.
    """
    prompt, completion = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    details = as_object(usage.get("prompt_tokens_details"))
    cached = (
        _count(details, "cached_tokens")
        or _count(usage, "cached_tokens")
        or _count(usage, "prompt_cache_hit_tokens")
        or _count(usage, "cache_read_input_tokens")
    )
    created = _count(details, "cache_write_tokens") or _count(usage, "cache_creation_input_tokens")
    if not (prompt or completion or cached or created):
        return {}
    has_anthropics = "cache_read_input_tokens" in usage or "cache_creation_input_tokens" in usage
    is_without = has_anthropics and cached + created > prompt
    reasoning = _count(as_object(usage.get("completion_tokens_details")), "reasoning_tokens")
    apart = max(_count(usage, "total_tokens") - prompt - completion, 0)
    is_cache = apart in (cached, created, cached + created)  # which are not in the prompt then
    if not is_cache and (apart == reasoning or not (reasoning or has_anthropics)):
        completion += apart
    return {
        "input_tokens": prompt if is_without else max(prompt - cached - created, 0),
        "cache_creation_input_tokens": created,
        "cache_read_input_tokens": cached,
        "output_tokens": completion,
    }


def _count(usage: Object, name: str) -> int:
    return token_count(usage.get(name))


# thinking in the text

_TAGS = ("<think>", "<thought>", "<thinking>")
_LONGEST_TAG = 200
"""Characters, mostly white space, that are held to see whether a tag follows."""


class ThinkTags:
    """Separates thinking from text, in pieces of any size.

    MiniMax, Gemini (`<thought>`) and many local servers send thinking in the text itself, between `<think>`
    and `</think>` at its start (openai-chat.md, 3, "Reasoning fields"). Text that does not begin with a tag
    is left as it is.
    """

    def __init__(self) -> None:
        self._held = ""
        """The end of the text so far, which may be the start of a tag."""
        self._closing = ""
        """The tag that will end the thinking; empty outside thinking."""
        self._before = True
        """Whether the text has not begun yet."""
        self._after = False
        """Whether only white space has come since the closing tag."""

    @property
    def is_text(self) -> bool:
        """True once everything that follows is text."""
        return not (self._before or self._closing or self._after or self._held)

    def feed(self, text: str) -> list[TextPiece | Reasoning]:
        text, self._held = self._held + text, ""
        if self._before:
            return self._opened(text)
        if self._closing:
            return self._thought(text)
        return self._text(text)

    def end(self) -> list[TextPiece | Reasoning]:
        """The held text: nothing that would complete a tag follows."""
        held, self._held = self._held, ""
        self._before = self._before and not held
        if not held:
            return []
        return [Reasoning(held)] if self._closing else [TextPiece(held)]

    def _opened(self, text: str) -> list[TextPiece | Reasoning]:
        begun = text.lstrip()
        tag = next((tag for tag in _TAGS if begun.startswith(tag)), None)
        if tag is None and len(text) <= _LONGEST_TAG and any(tag.startswith(begun) for tag in _TAGS):
            self._held = text
            return []
        self._before = False
        if tag is None:
            return self._text(text)
        self._closing = tag.replace("<", "</")
        return self._thought(begun[len(tag) :])

    def _thought(self, text: str) -> list[TextPiece | Reasoning]:
        thought, closed, rest = text.partition(self._closing)
        if closed:
            self._closing, self._after = "", True
            return [*_reasoning(thought), *self._text(rest)]
        kept = next(n for n in range(len(self._closing) - 1, -1, -1) if text.endswith(self._closing[:n]))
        self._held = text[len(text) - kept :]
        return _reasoning(text[: len(text) - kept])

    def _text(self, text: str) -> list[TextPiece | Reasoning]:
        if self._after:
            text = text.lstrip()
            self._after = not text
        return [TextPiece(text)] if text else []


def _reasoning(text: str) -> list[TextPiece | Reasoning]:
    return [Reasoning(text)] if text else []
