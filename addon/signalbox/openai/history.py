"""Puts the messages of a conversation into the order that chat completions require.

The results of all calls follow the assistant message that made the calls; other text of the user and the
operator comes after the last result (translation.md, 2). Each message depends only on those before it, so
that the same history always gives the same first bytes, which prompt caches rely on.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

import msgspec

from signalbox.openai.content import (
    ERROR,
    NO_OUTPUT,
    NO_RESULT,
    NOTHING,
    RESULT_WITHOUT_CALL,
    ContentPart,
    ContentReader,
    HistoryCall,
    as_reminder,
    content_of,
    is_call,
    is_result,
    result_text,
    with_results,
)
from signalbox.openai.dialects import Dialect, matches_any
from signalbox.openai.ids import RequestIds, payload_of, unpack
from signalbox.openai.incoming import (
    ContentBlock,
    Message,
    Piece,
    as_objects,
    as_text,
    has_text,
    join_texts,
    pieces,
)
from signalbox.openai.tools import Names

_UNSIGNED = "skip_thought_signature_validator"
"""The signature that Gemini takes for a call of another model (openai-chat.md, 6)."""


class AssistantMessage(msgspec.Struct, frozen=True):
    """An assistant message as sent, and its calls."""

    message: dict[str, Any]
    calls: list[HistoryCall]


class AssistantWriter:
    """Writes assistant messages for one provider and model: text, calls, and thinking that is sent back."""

    def __init__(
        self, dialect: Dialect, model: str, provider: str, parts: ContentReader, names: Names, *, off: bool
    ) -> None:
        """`off`: thinking is switched off in this request."""
        self._dialect = dialect
        self._provider = provider
        self._signs = matches_any(model, dialect.signed_calls)
        self._parts = parts
        self._names = names
        self._off = off
        self._ids = RequestIds(dialect.call_id, dialect.new_id)

    def of(self, messages: Iterable[Message]) -> AssistantMessage | None:
        """Merges consecutive messages into one; None if nothing is left to send."""
        uses: list[ContentBlock] = []
        thoughts: list[ContentBlock] = []
        parts: list[ContentPart] = []
        carriers: list[ContentBlock] = []
        for turn in messages:
            for piece in pieces(turn.content):
                if is_call(piece):
                    uses.append(piece)
                    carriers.append(piece)
                    continue
                if isinstance(piece, ContentBlock) and piece.type == "thinking":
                    thoughts.append(piece)
                    carriers.append(piece)
                parts += self._parts_of(piece)
        if not uses and not parts:
            return None
        payloads = [self._carried(block) for block in thoughts]
        late = next((as_text(payload["google"]) for payload in payloads if "google" in payload), "")
        calls, written, renamed = self._calls(uses, late)
        message: dict[str, Any] = {"role": "assistant"}
        if parts:
            message["content"] = content_of(parts)
        elif self._dialect.empty_content:
            message["content"] = None
        message |= _details(map(self._carried, carriers), renamed) or self._thinking(
            thoughts, payloads, called=bool(calls)
        )
        if calls:
            message["tool_calls"] = written
        return AssistantMessage(message, calls)

    def _parts_of(self, piece: Piece) -> list[ContentPart]:
        """The parts of a block; media are replaced by text, since an assistant message holds none."""
        return [part if not part.media else ContentPart("[media omitted]") for part in self._parts.of(piece)]

    def _calls(
        self, blocks: list[ContentBlock], late: str
    ) -> tuple[list[HistoryCall], list[dict[str, Any]], dict[str, str]]:
        """The calls, their JSON, and a map from the provider's own ids to those sent. `late` is a signature
        that came after the id of its call had been sent."""
        calls, written, renamed = [], [], {}
        for index, block in enumerate(blocks):
            asked = as_text(block.id)
            own, extra = unpack(asked)
            sent, name = (
                self._ids.sent(own, is_its=extra.get("by") == self._provider),
                self._names.sent(block.name),
            )
            renamed[own] = sent
            calls.append(HistoryCall(asked, sent, name))
            call: dict[str, Any] = {
                "id": sent,
                "type": "function",
                "function": {"name": name, "arguments": block.arguments},
            }
            signature = as_text(self._carried(block).get("google"))
            if index == 0:  # only the first call needs one
                signature = signature or late or (_UNSIGNED if self._signs else "")
            if signature:
                call["extra_content"] = {"google": {"thought_signature": signature}}
            written.append(call)
        return calls, written, renamed

    def _thinking(
        self, blocks: list[ContentBlock], payloads: list[dict[str, Any]], *, called: bool
    ) -> dict[str, Any]:
        """The field that carries thinking (translation.md, 4)."""
        replay = self._dialect.replay
        if replay in ("never", "details"):
            return {}
        key = next((payload["key"] for payload in payloads if _names_field(payload)), "")
        text = "".join(as_text(block.thinking) for block in blocks)
        if has_text(text) and (key or replay != "known"):
            return {key or self._dialect.reasoning: text}
        wanted = replay == "every" or (replay == "calls" and called)
        return {self._dialect.reasoning: self._dialect.placeholder} if wanted and not self._off else {}

    def _carried(self, piece: ContentBlock) -> dict[str, Any]:
        """The payload that an earlier answer of this provider stored in a signature or in the id of a
        call."""
        if piece.type == "thinking":
            return payload_of(as_text(piece.signature), self._provider)
        extra = unpack(as_text(piece.id))[1]
        return extra if extra.get("by", self._provider) == self._provider else {}


def _details(carried: Iterable[dict[str, Any]], renamed: dict[str, str]) -> dict[str, Any]:
    """`reasoning_details` as received, with the ids that their calls have in this request."""
    entries = [one for extra in carried for one in as_objects(extra.get("reasoning_details"))]
    details = [
        one | {"id": renamed[one["id"]]} if isinstance(one.get("id"), str) and one["id"] in renamed else one
        for one in entries
    ]
    return {"reasoning_details": details} if details else {}


def _names_field(payload: dict[str, Any]) -> bool:
    return payload.get("key") in ("reasoning_content", "reasoning")


_ELSEWHERE = "(see attached media)"
_BRIDGE = {"role": "assistant", "content": "OK."}

type Sent = dict[str, Any]


class History:
    """Writes the history for one provider and model."""

    def __init__(
        self,
        dialect: Dialect,
        model: str,
        parts: ContentReader,
        assistant: AssistantWriter,
        notes: Counter[str],
    ) -> None:
        self._dialect = dialect
        self._bridges = matches_any(model, dialect.bridged)
        self._parts = parts
        self._assistant = assistant
        self._notes = notes

    def of(self, messages: Iterable[Message], closing: str) -> list[Sent]:
        """The messages as sent. `closing` is added as user text if the last message is not the model's."""
        sent: list[Sent] = []
        between: list[Message] = []
        calls: list[HistoryCall] = []
        for is_assistants, turn in groupby(messages, lambda message: message.role == "assistant"):
            if not is_assistants:
                between += turn
                continue
            assistant = self._assistant.of(turn)
            if assistant is None:
                continue
            if sent or between:
                sent += self._between(between, calls, opens=not sent)
            sent.append(assistant.message)
            between, calls = [], assistant.calls
        if between or calls or not sent:
            sent += self._between(between, calls, closing, opens=not sent)
        return sent

    def _between(
        self, messages: Iterable[Message], calls: list[HistoryCall], closing: str = "", *, opens: bool
    ) -> list[Sent]:
        """The messages between two assistant messages, or before the first one. There is at least one, and at
        the start of the conversation at least one that is not a system message."""
        results, turns = self._sorted(messages, calls)
        media: list[ContentPart] = []
        sent = [self._result(call, results.get(call.sent), media) for call in calls]
        turns.insert(0, ("user", media))
        turns.append(("user", [ContentPart(closing)] if closing else []))
        for role, turn in groupby((entry for entry in turns if entry[1]), lambda entry: entry[0]):
            parts = [part for _, some in turn for part in some]
            if self._bridges and sent and sent[-1]["role"] == "tool":
                sent.append(_BRIDGE)
            sent.append({"role": role, "content": content_of(parts)})
        if not sent or (opens and all(message["role"] == "system" for message in sent)):
            sent.append({"role": "user", "content": NOTHING})
        return sent

    def _sorted(
        self, messages: Iterable[Message], calls: list[HistoryCall]
    ) -> tuple[dict[str, ContentBlock], list[tuple[str, list[ContentPart]]]]:
        """Results by the id of their call as sent; all other parts in order, with their role."""
        results, others = with_results(messages, calls)
        turns: list[tuple[str, list[ContentPart]]] = []
        for message, left in others:
            parts = [part for piece in left for part in self._parts_of(piece)]
            turns.append(self._operator(parts) if message.role == "system" else ("user", parts))
        return results, turns

    def _operator(self, parts: list[ContentPart]) -> tuple[str, list[ContentPart]]:
        """A system message, or user text in `<system-reminder>` as Claude Code writes it."""
        texts = [part for part in parts if not part.media]
        if self._dialect.system_anywhere or not texts:
            return "system", texts
        text = join_texts(part.text for part in texts)
        return "user", [ContentPart(as_reminder(text), cache=texts[-1].cache)]

    def _parts_of(self, piece: Piece) -> Iterator[ContentPart]:
        """The parts of a block. A result without its call becomes text, since providers refuse it."""
        if not is_result(piece):
            yield from self._parts.of(piece)
            return
        self._notes["results without a call"] += 1
        yield ContentPart(RESULT_WITHOUT_CALL)
        yield from self._parts.read(piece.inner)

    def _result(self, call: HistoryCall, block: ContentBlock | None, media: list[ContentPart]) -> Sent:
        """A `tool` message, which holds text only; media are appended to `media`. A result that is one text
        is sent as the JSON in which it came."""
        if block is None:
            self._notes["missing results"] += 1
            return {"role": "tool", "tool_call_id": call.sent, "content": NO_RESULT}
        cache = self._parts.cache(block)
        if not cache and (sent := result_text(block)) is not None:
            return {"role": "tool", "tool_call_id": call.sent, "content": sent}
        parts = self._parts.read(block.inner)
        shown = [part for part in parts if part.media]
        if shown:
            media += [ContentPart(f"[media returned by {call.name}]"), *shown]
        text = join_texts(part.text for part in parts) or (_ELSEWHERE if shown else NO_OUTPUT)
        content = ContentPart(ERROR + text if block.is_error is True else text, cache=cache)
        return {"role": "tool", "tool_call_id": call.sent, "content": content_of([content])}


def system_of(parts: list[ContentPart]) -> list[Sent]:
    """The system message; empty without text."""
    texts = [part for part in parts if has_text(part.text)]
    return [{"role": "system", "content": content_of(texts, "\n\n")}] if texts else []
