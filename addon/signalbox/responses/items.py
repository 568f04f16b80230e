"""Writes the messages of a conversation as input items of the Responses API (openai-responses.md, 2).

A turn of the assistant becomes several items, in the order of its blocks. The outputs of all calls follow the
calls, before other text of the user and the operator: some servers turn items into chat completions, which
require that order. No item has an `id` or a `status`: with `store: false` an id is not found again, and
providers pair reasoning with what followed it by ids alone. Each item depends only on the messages before it
and on its own, so that the same history always gives the same first bytes, which prompt caches rely on.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import groupby, pairwise
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
    is_call,
    is_result,
    result_text,
    with_results,
)
from signalbox.openai.dialects import matches_any, sees
from signalbox.openai.ids import RequestIds, unpack
from signalbox.openai.incoming import (
    ContentBlock,
    Message,
    Object,
    Piece,
    as_text,
    has_text,
    join_texts,
    pieces,
)
from signalbox.openai.tools import Names
from signalbox.responses.dialects import Dialect
from signalbox.responses.reasoning import ReasoningOwner

type Item = dict[str, Any]

_END: Item = {"type": ""}


class ResponsesContent(ContentReader):
    """The content of input items."""

    def __init__(self, dialect: Dialect, model: str, notes: Counter[str]) -> None:
        super().__init__(notes, sees=dialect.images and sees(model), image_urls=dialect.image_urls)
        self._files = dialect.files

    def image(self, url: str) -> Object:
        """See `ContentReader.image`."""
        return {"type": "input_image", "image_url": url, "detail": "auto"}

    def file(self, name: str, url: str) -> Object | None:
        """See `ContentReader.file`: a PDF with its bytes, or any document with its URL."""
        if not self._files:
            return None
        if url.startswith("data:application/pdf;"):
            return {"type": "input_file", "filename": name, "file_data": url}
        return None if url.startswith("data:") else {"type": "input_file", "file_url": url}


class ItemWriter:
    """Writes the history for one provider and model."""

    def __init__(
        self,
        dialect: Dialect,
        model: str,
        owner: ReasoningOwner,
        content: ContentReader,
        names: Names,
        notes: Counter[str],
    ) -> None:
        self._dialect = dialect
        self._owner = owner
        self._takes_reasoning = matches_any(model, dialect.encrypted)
        self._has_phases = matches_any(model, dialect.phases)
        self._content = content
        self._names = names
        self._notes = notes
        self._ids = RequestIds(dialect.call_id, dialect.new_id)
        self.has_reasoning = False
        """Whether any item holds reasoning."""

    def of(self, messages: Iterable[Message], closing: str = "") -> list[Item]:
        """The items, at least one. `closing` is added as user text if the last message is not the model's."""
        items: list[Item] = []
        calls: list[HistoryCall] = []
        is_assistants = False
        for is_assistants, turn in groupby(messages, lambda message: message.role == "assistant"):
            if is_assistants:
                written, calls = self._assistant(turn)
                items += written
            else:
                items += self._between(turn, calls)
                calls = []
        items += self._outputs({}, calls, [])
        if closing and (calls or not is_assistants):
            items.append(_message("user", [ContentPart(closing)]))
        return items or [_message("user", [ContentPart(NOTHING)])]

    # the assistant's

    def _assistant(self, messages: Iterable[Message]) -> tuple[list[Item], list[HistoryCall]]:
        """The items of one turn, which clients may send as several messages, and the calls among them.
        Reasoning stays only directly before a text or a call."""
        items: list[Item] = []
        calls: list[HistoryCall] = []
        for piece in (piece for message in messages for piece in pieces(message.content)):
            if is_call(piece):
                call, item = self._call(piece)
                calls.append(call)
                items.append(item)
            elif (reasoning := self._reasoning(piece)) is not None:
                items.append(reasoning)
            elif text := "\n".join(self._texts(piece)):
                if items and items[-1]["type"] == "message":
                    items[-1]["content"] += f"\n{text}"
                else:
                    items.append({"type": "message", "role": "assistant", "content": text})
        followed = [
            item
            for item, following in pairwise([*items, _END])
            if item["type"] != "reasoning" or following["type"] in ("message", "function_call")
        ]
        self._notes["reasoning without what followed it"] += len(items) - len(followed)
        self.has_reasoning |= any(item["type"] == "reasoning" for item in followed)
        if self._has_phases:
            self._add_phases(followed)
        return followed, calls

    def _add_phases(self, items: list[Item]) -> None:
        """Says of each text whether calls follow it in the same turn."""
        is_before_call = False
        for item in reversed(items):
            is_before_call = is_before_call or item["type"] == "function_call"
            if item["type"] == "message":
                item["phase"] = "commentary" if is_before_call else "final_answer"

    def _reasoning(self, piece: Piece) -> Item | None:
        """The reasoning item that a block carries, if this very model made it."""
        if not isinstance(piece, ContentBlock) or piece.type not in ("thinking", "redacted_thinking"):
            return None
        encrypted = self._owner.encrypted_content(as_text(piece.signature)) if self._takes_reasoning else ""
        if not encrypted:
            self._notes["reasoning of another model or key dropped"] += 1
            return None
        return {"type": "reasoning", "summary": [], "encrypted_content": encrypted}

    def _texts(self, piece: Piece) -> list[str]:
        """The texts of a block; media are replaced by text, since an assistant message holds none."""
        return [part.text if not part.media else "[media omitted]" for part in self._content.of(piece)]

    def _call(self, block: ContentBlock) -> tuple[HistoryCall, Item]:
        asked = as_text(block.id)
        own, extra = unpack(asked)
        sent = self._ids.sent(own, is_its=extra.get("by") == self._owner.provider)
        name = self._names.sent(block.name)
        item = {
            "type": "function_call",
            "call_id": sent,
            "name": name,
            "arguments": block.arguments,
        }
        return HistoryCall(asked, sent, name), item

    # the user's

    def _between(self, messages: Iterable[Message], calls: list[HistoryCall]) -> Iterator[Item]:
        """The items between two assistant messages."""
        results, others = with_results(messages, calls)
        media: list[ContentPart] = []
        yield from self._outputs(results, calls, media)
        if media:
            yield _message("user", media)
        for message, left in others:
            parts = [part for piece in left for part in self._parts(piece)]
            if parts:
                yield self._operator(parts) if message.role == "system" else _message("user", parts)

    def _outputs(
        self, results: dict[str, ContentBlock], calls: list[HistoryCall], media: list[ContentPart]
    ) -> list[Item]:
        return [
            {
                "type": "function_call_output",
                "call_id": call.sent,
                "output": self._output(call, results.get(call.sent), media),
            }
            for call in calls
        ]

    def _output(
        self, call: HistoryCall, block: ContentBlock | None, media: list[ContentPart]
    ) -> str | msgspec.Raw | list[Object]:
        """The output of a call. Media that it cannot hold are appended to `media`."""
        if block is None:
            self._notes["missing results"] += 1
            return NO_RESULT
        if (raw := result_text(block)) is not None:
            return raw
        parts = self._content.read(block.inner)
        mark = ERROR if block.is_error is True else ""
        if not any(part.media for part in parts):
            return mark + (join_texts(part.text for part in parts) or NO_OUTPUT)
        if self._dialect.media_in_results:
            return _parts([*([ContentPart(mark.strip())] if mark else []), *parts])
        media += [ContentPart(f"[media returned by {call.name}]"), *(part for part in parts if part.media)]
        return mark + (join_texts(part.text for part in parts) or "(see attached media)")

    def _parts(self, piece: Piece) -> Iterator[ContentPart]:
        """The parts of a block. A result without its call becomes text, since providers refuse it."""
        if not is_result(piece):
            yield from self._content.of(piece)
            return
        self._notes["results without a call"] += 1
        yield ContentPart(RESULT_WITHOUT_CALL)
        yield from self._content.read(piece.inner)

    def _operator(self, parts: list[ContentPart]) -> Item:
        """A system message in its place, or user text as Claude Code writes it."""
        text = join_texts(part.text for part in parts) or NOTHING
        if self._dialect.developer:
            return _message("developer", [ContentPart(text)])
        return _message("user", [ContentPart(as_reminder(text))])


def _message(role: str, parts: list[ContentPart]) -> Item:
    return {"type": "message", "role": role, "content": _parts(parts)}


def _parts(parts: Iterable[ContentPart]) -> list[Object]:
    return [
        part.media or {"type": "input_text", "text": part.text}
        for part in parts
        if part.media or has_text(part.text)
    ]
