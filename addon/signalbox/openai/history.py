"""Puts the messages of a conversation into the order that chat completions require.

The results of all calls follow the assistant message that made the calls; other text of the user and the
operator comes after the last result (translation.md, 2). Each message depends only on those before it, so
that the same history always gives the same first bytes, which prompt caches rely on.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, TypeGuard

import msgspec

from signalbox.openai.dialects import Dialect, matches_any, sees
from signalbox.openai.ids import RequestIds, payload_of, unpack
from signalbox.openai.incoming import (
    Content,
    ContentBlock,
    Message,
    Piece,
    Source,
    as_object,
    as_objects,
    as_text,
    has_text,
    join_texts,
    pieces,
    text_in,
)
from signalbox.openai.tools import Names

_MEDIA_TYPES = {"image/jpg": "image/jpeg"}


class ContentPart(msgspec.Struct, frozen=True):
    """One part of a message's content."""

    text: str = ""
    media: dict[str, Any] | None = None
    """The part as sent, if it is not text."""
    cache: dict[str, str] | None = None
    """The `cache_control` to send with it."""

    @property
    def sent(self) -> dict[str, Any]:
        part = self.media or {"type": "text", "text": self.text}
        return part | {"cache_control": self.cache} if self.cache else part


def content_of(parts: Sequence[ContentPart], by: str = "\n") -> str | list[dict[str, Any]]:
    """One string if possible, which all servers understand (openai-chat.md, 1)."""
    if len(parts) == 1 and not (parts[0].media or parts[0].cache):
        return parts[0].text if has_text(parts[0].text) else ""
    if any(part.media or part.cache for part in parts):
        return [part.sent for part in parts]
    return join_texts((part.text for part in parts), by)


class ContentReader:
    """Translates content for one provider and model: text, images and documents."""

    def __init__(self, dialect: Dialect, model: str, notes: Counter[str]) -> None:
        self._dialect = dialect
        self._sees = sees(model, dialect)
        self._caches = matches_any(model, dialect.cache_control)
        self._notes = notes

    def read(self, content: Content) -> list[ContentPart]:
        return [part for piece in pieces(content) for part in self.of(piece)]

    def of(self, piece: Piece) -> list[ContentPart]:
        """The parts of one block, without blank ones. Its `cache_control` goes to the last part."""
        if isinstance(piece, ContentBlock) and piece.type in ("image", "document"):
            source = piece.source if isinstance(piece.source, Source) else Source()
            found = [self._image(source)] if piece.type == "image" else self._document(piece, source)
            parts = [part for part in found if part.media or has_text(part.text)]
        else:
            text = text_in(piece)
            parts = [ContentPart(text)] if has_text(text) else []
        if parts and (cache := self.cache(piece)):
            parts[-1] = msgspec.structs.replace(parts[-1], cache=cache)
        return parts

    def cache(self, piece: Piece) -> dict[str, str] | None:
        """The block's `cache_control`, for models that need it (openai-chat.md, 1)."""
        if not self._caches or not isinstance(piece, ContentBlock):
            return None
        marker = as_object(piece.cache_control)
        if marker.get("type") != "ephemeral":
            return None
        ttl = marker.get("ttl")
        return {"type": "ephemeral", "ttl": ttl} if isinstance(ttl, str) else {"type": "ephemeral"}

    def _image(self, source: Source) -> ContentPart:
        url = _url(source) if self._sees else ""
        if not url or not (self._dialect.image_urls or url.startswith("data:")):
            self._notes["images omitted"] += 1
            return ContentPart(join_texts(("[image omitted]", as_text(source.url))))
        return ContentPart(media={"type": "image_url", "image_url": {"url": url}})

    def _document(self, block: ContentBlock, source: Source) -> list[ContentPart]:
        """Text and the images inside it; a PDF if the provider takes one (translation.md, 2)."""
        title, context = as_text(block.title), as_text(block.context)
        if source.type == "content":
            return [ContentPart(title), ContentPart(context), *self.read(source.content)]
        if source.type == "text":
            return [ContentPart(text_in(block))]
        return [ContentPart(context), self._file(title, source)]

    def _file(self, title: str, source: Source) -> ContentPart:
        url = _url(source)
        is_pdf = url.startswith("data:application/pdf;")
        if is_pdf and self._dialect.pdf == "file":
            name = title or "document.pdf"
            return ContentPart(media={"type": "file", "file": {"filename": name, "file_data": url}})
        if is_pdf and self._dialect.pdf == "image_url":
            return ContentPart(media={"type": "image_url", "image_url": {"url": url}})
        self._notes["documents omitted"] += 1
        return ContentPart(join_texts(("[document omitted]", title, as_text(source.url))))


def _url(source: Source) -> str:
    """The URL, or a data URL; empty for an uploaded file."""
    media_type, data = as_text(source.media_type).lower(), as_text(source.data)
    if media_type and data:
        return f"data:{_MEDIA_TYPES.get(media_type, media_type)};base64,{data}"
    return as_text(source.url)


_UNSIGNED = "skip_thought_signature_validator"
"""The signature that Gemini takes for a call of another model (openai-chat.md, 6)."""


class HistoryCall(msgspec.Struct, frozen=True):
    """A call whose result must follow."""

    asked: str
    """The id in the client's history."""
    sent: str
    name: str


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
                if _is_call(piece):
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
            calls.append(HistoryCall(asked, sent, block.name))
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


def _is_call(piece: Piece) -> TypeGuard[ContentBlock]:
    return isinstance(piece, ContentBlock) and piece.type == "tool_use" and as_text(piece.name) != ""


def _names_field(payload: dict[str, Any]) -> bool:
    return payload.get("key") in ("reasoning_content", "reasoning")


_NO_RESULT = "[no result: cancelled]"
_NO_OUTPUT = "(no output)"
_NOTHING = "(no content)"
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
            sent.append({"role": "user", "content": _NOTHING})
        return sent

    def _sorted(
        self, messages: Iterable[Message], calls: list[HistoryCall]
    ) -> tuple[dict[str, ContentBlock], list[tuple[str, list[ContentPart]]]]:
        """Results by the id of their call as sent; all other parts in order, with their role."""
        waiting: defaultdict[str, list[HistoryCall]] = defaultdict(list)
        for call in reversed(calls):
            waiting[call.asked].append(call)
        results: dict[str, ContentBlock] = {}
        turns: list[tuple[str, list[ContentPart]]] = []
        for message in messages:
            parts: list[ContentPart] = []
            for piece in pieces(message.content):
                if _is_result(piece) and waiting.get(piece.tool_use_id):
                    results[waiting[piece.tool_use_id].pop().sent] = piece
                else:
                    parts += self._parts_of(piece)
            turns.append(self._operator(parts) if message.role == "system" else ("user", parts))
        return results, turns

    def _operator(self, parts: list[ContentPart]) -> tuple[str, list[ContentPart]]:
        """A system message, or user text in `<system-reminder>` as Claude Code writes it."""
        texts = [part for part in parts if not part.media]
        if self._dialect.system_anywhere or not texts:
            return "system", texts
        text = join_texts(part.text for part in texts)
        return "user", [ContentPart(f"<system-reminder>\n{text}\n</system-reminder>", cache=texts[-1].cache)]

    def _parts_of(self, piece: Piece) -> Iterator[ContentPart]:
        """The parts of a block. A result without its call becomes text, since providers refuse it."""
        if not _is_result(piece):
            yield from self._parts.of(piece)
            return
        self._notes["results without a call"] += 1
        yield ContentPart("[result of an earlier tool call]")
        yield from self._parts.read(piece.inner)

    def _result(self, call: HistoryCall, block: ContentBlock | None, media: list[ContentPart]) -> Sent:
        """A `tool` message, which holds text only; media are appended to `media`. A result that is one text
        is sent as the JSON in which it came."""
        if block is None:
            self._notes["missing results"] += 1
            return {"role": "tool", "tool_call_id": call.sent, "content": _NO_RESULT}
        cache = self._parts.cache(block)
        if block.holds_text and not cache:
            raw = bytes(block.content)
            sent = b'"Error: %b' % raw[1:] if block.is_error is True else raw
            return {"role": "tool", "tool_call_id": call.sent, "content": msgspec.Raw(sent)}
        parts = self._parts.read(block.inner)
        shown = [part for part in parts if part.media]
        if shown:
            media += [ContentPart(f"[media returned by {call.name}]"), *shown]
        text = join_texts(part.text for part in parts) or (_ELSEWHERE if shown else _NO_OUTPUT)
        content = ContentPart(f"Error: {text}" if block.is_error is True else text, cache=cache)
        return {"role": "tool", "tool_call_id": call.sent, "content": content_of([content])}


def _is_result(piece: Piece) -> TypeGuard[ContentBlock]:
    return (
        isinstance(piece, ContentBlock) and piece.type == "tool_result" and isinstance(piece.tool_use_id, str)
    )


def system_of(parts: list[ContentPart]) -> list[Sent]:
    """The system message; empty without text."""
    texts = [part for part in parts if has_text(part.text)]
    return [{"role": "system", "content": content_of(texts, "\n\n")}] if texts else []
