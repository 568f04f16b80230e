"""An answer of chat completions becomes Anthropic's events: steps in, events out, no I/O.

Here too: what a `finish_reason` means, what a `usage` counts, and thinking that stands in the text.
"""

import logging
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec
from msgspec.structs import replace

from signalbox.anthropic.answer_facts import AnswerFacts
from signalbox.anthropic.api import token_count
from signalbox.anthropic.json_edit import whole_characters
from signalbox.anthropic.redaction import without_secrets
from signalbox.anthropic.writer import LARGEST, MessagesEvent, Writer
from signalbox.openai.chunks import (
    ChoiceStarted,
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
)
from signalbox.openai.errors import anthropic_error
from signalbox.openai.ids import ReasoningDetails, sign
from signalbox.openai.incoming import Object, as_object
from signalbox.openai.tool_calls import CallError, SurrogateJoiner, ToolCalls

log = logging.getLogger("signalbox")

_EACH = 100
"""That each piece counts for beside its own."""
_LONGEST = 64
"""Characters of a `finish_reason`."""
_EMPTY = b'{"error":{"type":"overloaded_error","message":"the answer is empty"}}'
"""As a provider might say it: most give nothing where they cannot keep up."""


class ChatStream:
    """Feed it steps, then call `end`; what they give is to be taken after each.

    `names` are tool names as sent to what the client calls them, `seed` is the random part of all ids,
    `stops` are the stop sequences that were asked for. What went wrong is noted in `facts` (`cut`,
    `provider_error`), what was written in `writes`.
    An answer without anything in it is an error, unless its `finish_reason` tells why (translation.md, 8).
    """

    def __init__(
        self,
        facts: AnswerFacts,
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
        writes: AnswerFacts | None = None,
        key: bytes | None = None,
        response_model: str | None = None,
        estimate: Callable[[], int] | None = None,
        largest: int = LARGEST,
    ) -> None:
        """`key`, `response_model` and `estimate` are the `Writer`'s; an answer of more than `largest`
        characters is cut."""
        self.facts = facts
        self._provider = provider
        self._model = model
        self._request_id = request_id
        self._stops = stops
        self._largest = largest
        self._secrets = secrets
        self._shows_thinking = shows_thinking
        self._writer = Writer(
            f"msg_{seed}",
            model,
            self._signature,
            facts=writes,
            key=key,
            response_model=response_model,
            estimate=estimate,
        )
        self._calls = ToolCalls(self._writer, names, seed, provider=provider, signed=signed)
        self._tags = ThinkTags()
        self._halves: defaultdict[type[Step], SurrogateJoiner] = defaultdict(SurrogateJoiner)
        """Of text and of thinking."""
        self._said: defaultdict[type[Step], list[str]] = defaultdict(list)
        """All text of each kind, to know what a whole message says again."""
        self._waiting: list[TextPiece | Reasoning] = []
        """What came while a call was in progress."""
        self._blank = ""
        """White space that a text block would begin with: alone it is none."""
        self._payload: Object = {}
        """What the open block of thinking is signed with."""
        self._details = ReasoningDetails()
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

    def taken(self) -> list[MessagesEvent]:
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
        if self._finish or is_foreign or (self._calls.all_complete and not self._writer.open):
            self.take([EndOfStream()])
        else:
            self._cut("the stream ended in the middle")

    def _take(self, step: Step) -> None:
        match step:
            case ChoiceStarted(model):
                self._writer.begin(model)
            case TextPiece(text):
                self._grow(step, text)
                self._spread(self._tags.feed(self._halves[TextPiece].feed(text)))
            case Refusal(text):
                self._refused = True
                self._grow(step, text)
                self._spread([TextPiece(self._halves[TextPiece].feed(text))])
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
            case FullMessage(steps):
                for one in list(self._unsaid(steps)):
                    self._take(one)
            case Finish():
                self._end(step)
            case UsageReported(usage):
                self._usage = usage_of(usage) or self._usage
            case ErrorChunk(body):
                self._fail(body)
            case Foreign():
                self._foreign = step if step.says or self._foreign is None else self._foreign
            case Malformed():
                self._cut("a chunk is not JSON")
            case EndOfStream():
                self._close()

    def _unsaid(self, steps: Iterable[Step]) -> Iterator[Step]:
        """What a whole message adds to what was said: the rest of a text, or of a call, that goes on."""
        said = {kind: whole_characters("".join(pieces)) for kind, pieces in self._said.items()}
        whole: defaultdict[type[Step], str] = defaultdict(str)
        for step in steps:
            if isinstance(step, TextPiece | Refusal | Reasoning):
                whole[type(step)] += step.text
        skipped = {
            kind: len(text) if whole_characters(whole[kind]).startswith(text) else len(whole[kind])
            for kind, text in said.items()
        }
        for step in steps:
            if type(step) not in said:
                if not (isinstance(step, Reasoning) and TextPiece in said):  # maybe it stood in the text
                    yield step
            elif isinstance(step, TextPiece | Refusal | Reasoning):
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
            log.debug(
                "%s: unknown finish_reason %r, taken for %s", self._provider, shown, finish_meaning(reason)
            )
        if kind := fault_of(reason):
            error = {"type": kind, "code": reason, "message": f"the answer ended with {reason}"}
            self._fail(msgspec.json.encode({"error": error}))

    def _grow(self, step: Step, text: str) -> None:
        self._said[type(step)].append(text if not isinstance(step, Fragment) else "")
        self._finished = self._finished and not text
        self._characters += len(text)
        self._size += len(text) + _EACH
        if self._size > self._largest:
            self._cut("the answer is too large")

    def _cut(self, why: str) -> None:
        self.facts.cut = why
        self._over = True

    def _fail(self, body: bytes) -> None:
        self.facts.provider_error = body = without_secrets(body, self._secrets)
        self._over = True
        said = anthropic_error(200, body, self._provider, self._model)
        self._writer.error(said.type, said.message, self._request_id)

    # text and thinking

    def _spread(self, said: Iterable[TextPiece | Reasoning]) -> None:
        """Writes it, or keeps it until the call in progress is over: one block is open at a time."""
        said = list(said)
        if said:
            self._calls.release()
        if self._calls.in_progress:
            self._waiting += said
            return
        for one in said:
            if isinstance(one, TextPiece):
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
            self._payload, self._details = {"key": thought.key} if thought.key else {}, ReasoningDetails()
        self._blank = ""
        self._details.add(thought.details)
        self._writer.thinking(thought.text)

    def _signature(self, text: str) -> str:
        return sign(self._provider, text, self._payload | self._details.payload())

    def _held_back(self) -> list[TextPiece | Reasoning]:
        """Text that waited for more of a tag or of a character."""
        return [*self._tags.feed(self._halves[TextPiece].end()), *self._tags.end()]

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
            self._payload, self._details = late, ReasoningDetails()
            self._writer.thinking("")


# why it ended (translation.md, 5)

_MEANINGS: Mapping[str, str] = {
    word: finish_meaning
    for finish_meaning, words in {
        "end_turn": "stop end_turn end eos eos_token complete completed done stop_sequence tool_calls"
        " tool_call tool_use function_call",
        "max_tokens": "length max_tokens max_output_tokens",
        "model_context_window_exceeded": "model_context_window_exceeded model_length",
        "refusal": "content_filter sensitive refusal safety recitation blocklist prohibited_content spii"
        " language",
        "api_error": "error network_error aborted abort cancelled canceled malformed_function_call"
        " malformed_response unexpected_tool_call too_many_tool_calls missing_thought_signature",
        "overloaded_error": "insufficient_system_resource load_shed",
        "timeout_error": "timeout",
    }.items()
    for word in words.split()
} | {"": "end_turn"}
"""What each `finish_reason` means: a stop reason, or the type of an error. Gemini writes its own in capitals;
`model_length` is Mistral's, `load_shed` Fireworks'."""

_RULES: Mapping[str, re.Pattern[str]] = {
    finish_meaning: re.compile("|".join(parts.split()))
    for finish_meaning, parts in {
        "overloaded_error": "overload load.?shed capacity resource unavailable rate.?limit throttl",
        "timeout_error": "time.?d?.?out deadline expired",
        "refusal": "filter safety sensitiv policy prohibit block refus guardrail moderat toxic unsafe",
        "api_error": "error abort cancel fail malform unexpected invalid interrupt disconnect crash killed"
        " exception missing unload too_many preempt evict shut.?down restart memory quota balance",
        "model_context_window_exceeded": "context",
        "max_tokens": "length max limit trunc incomplete",
    }.items()
}
"""What words that are not in the table mean, by what they hold; the first that does."""

_FAULTS = ("api_error", "overloaded_error", "timeout_error")


def is_known(finish: str) -> bool:
    return finish in _MEANINGS


def finish_meaning(finish: str) -> str:
    """A stop reason, or the type of an error, of a `finish_reason` in lower case; `end_turn` of words that
    say nothing."""
    known = _MEANINGS.get(finish)
    return known or next((told for told, rule in _RULES.items() if rule.search(finish)), "end_turn")


def fault_of(finish: str) -> str:
    """The type of error that a `finish_reason` tells of; empty where it tells of a stop."""
    told = finish_meaning(finish)
    return told if told in _FAULTS else ""


def is_cut(finish: str) -> bool:
    """Whether the answer reached a limit, so that what it wrote last may not be whole."""
    return finish_meaning(finish) in ("max_tokens", "model_context_window_exceeded")


def stop_reason(finish: str, *, called: bool, refused: bool, stopped: bool = False) -> str:
    """`called`: whether the answer has a tool call. Gemini and others say `stop` then, and what counts is
    the call; but for an answer that was too long, whose last call is cut. `stopped`: whether a stop sequence
    was met."""
    told = "refusal" if refused else finish_meaning(finish)
    if told != "end_turn":
        return told
    return "tool_use" if called else "stop_sequence" if stopped else told


def stop_sequence(finish: str, told: str, asked: tuple[str, ...]) -> str:
    """Which of the `asked` ones ended the answer; empty where none did or that is not known. Providers tell
    other things in the same field: the token of the end, Anthropic's own words."""
    if told in asked:
        return told
    return asked[0] if finish == "stop_sequence" and len(asked) == 1 else ""


# what it cost (translation.md, 5; openai-chat.md, 4)


def usage_of(told: Object) -> dict[str, int]:
    """The four counts of a `usage` object; empty where it holds none.

    `prompt_tokens` holds the cached ones, but for some who use Anthropic's names beside it.
    """
    prompt, completion = _count(told, "prompt_tokens"), _count(told, "completion_tokens")
    details = as_object(told.get("prompt_tokens_details"))
    cached = (
        _count(details, "cached_tokens")
        or _count(told, "cached_tokens")
        or _count(told, "prompt_cache_hit_tokens")
        or _count(told, "cache_read_input_tokens")
    )
    created = _count(details, "cache_write_tokens") or _count(told, "cache_creation_input_tokens")
    if not (prompt or completion or cached or created):
        return {}
    reasoning = _count(as_object(told.get("completion_tokens_details")), "reasoning_tokens")
    if reasoning and _count(told, "total_tokens") == prompt + completion + reasoning:
        completion += reasoning
    is_without = cached + created > prompt and (
        "cache_read_input_tokens" in told or "cache_creation_input_tokens" in told
    )
    return {
        "input_tokens": prompt if is_without else max(prompt - cached - created, 0),
        "cache_creation_input_tokens": created,
        "cache_read_input_tokens": cached,
        "output_tokens": completion,
    }


def estimated(characters: int) -> dict[str, int]:
    """Where the provider reports none. Counts the output only: the start of the stream holds the input."""
    return {"output_tokens": -(-characters // 4)}


def _count(told: Object, name: str) -> int:
    return token_count(told.get(name))


# thinking in the text

_TAGS = ("<think>", "<thought>", "<thinking>")
_LONGEST_TAG = 200
"""Characters, white space mostly, that wait for a tag."""


class ThinkTags:
    """Tells thinking from text, in pieces of any size.

    MiniMax, Gemini (`<thought>`) and many local servers send it in the text itself, between `<think>` and
    `</think>` at its very start (openai-chat.md, 3, "Reasoning fields"). Text without a tag at its start
    stays as it is.
    """

    def __init__(self) -> None:
        self._held = ""
        """What may be the head of a tag."""
        self._closing = ""
        """The tag that ends the thinking that is going on."""
        self._before = True
        """Whether the text has not begun yet."""
        self._after = False
        """Whether only white space has come since the closing tag."""

    def feed(self, text: str) -> list[TextPiece | Reasoning]:
        text, self._held = self._held + text, ""
        if self._before:
            return self._opened(text)
        if self._closing:
            return self._thought(text)
        return self._said(text)

    def end(self) -> list[TextPiece | Reasoning]:
        """What was held: no more text comes before something else does, or at all."""
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
            return self._said(text)
        self._closing = tag.replace("<", "</")
        return self._thought(begun[len(tag) :])

    def _thought(self, text: str) -> list[TextPiece | Reasoning]:
        thought, closed, said = text.partition(self._closing)
        if closed:
            self._closing, self._after = "", True
            return [*_reasoning(thought), *self._said(said)]
        kept = next(n for n in range(len(self._closing) - 1, -1, -1) if text.endswith(self._closing[:n]))
        self._held = text[len(text) - kept :]
        return _reasoning(text[: len(text) - kept])

    def _said(self, text: str) -> list[TextPiece | Reasoning]:
        if self._after:
            text = text.lstrip()
            self._after = not text
        return [TextPiece(text)] if text else []


def _reasoning(text: str) -> list[TextPiece | Reasoning]:
    return [Reasoning(text)] if text else []
