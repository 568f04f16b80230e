"""Translates the content of messages: text, images and documents (translation.md, 2).

What is the same for all protocols; how each writes an image or a file is in its own subclass.
"""

from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, TypeGuard

import msgspec

from signalbox.anthropic.images import OMITTED
from signalbox.openai.dialects import Dialect, matches_any, sees
from signalbox.openai.incoming import (
    Content,
    ContentBlock,
    Message,
    Object,
    Piece,
    Source,
    as_object,
    as_text,
    has_text,
    join_texts,
    pieces,
    text_in,
)

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


class ContentReader(ABC):
    """Translates content for one provider and model: text, images and documents."""

    def __init__(
        self, notes: Counter[str], *, sees: bool, image_urls: bool = True, caches: bool = False
    ) -> None:
        """`sees`: the model takes images. `image_urls`: an image may be a URL. `caches`: the model needs
        `cache_control` (openai-chat.md, 1)."""
        self._notes = notes
        self._sees = sees
        self._image_urls = image_urls
        self._caches = caches

    @abstractmethod
    def image(self, url: str) -> Object:
        """An image as sent; `url` may be a data URL."""

    @abstractmethod
    def file(self, name: str, url: str) -> Object | None:
        """A document as sent, or None if the provider does not take it; `url` may be a data URL."""

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
        if not url or not (self._image_urls or url.startswith("data:")):
            self._notes["images omitted"] += 1
            return ContentPart(join_texts((OMITTED, as_text(source.url))))
        return ContentPart(media=self.image(url))

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
        if url and (sent := self.file(title or "document.pdf", url)) is not None:
            return ContentPart(media=sent)
        self._notes["documents omitted"] += 1
        return ContentPart(join_texts(("[document omitted]", title, as_text(source.url))))


def _url(source: Source) -> str:
    """The URL, or a data URL; empty for an uploaded file."""
    media_type, data = as_text(source.media_type).lower(), as_text(source.data)
    if media_type and data:
        return f"data:{_MEDIA_TYPES.get(media_type, media_type)};base64,{data}"
    return as_text(source.url)


class ChatContent(ContentReader):
    """The content of chat completions."""

    def __init__(self, dialect: Dialect, model: str, notes: Counter[str]) -> None:
        super().__init__(
            notes,
            sees=sees(model, dialect.images),
            image_urls=dialect.image_urls,
            caches=matches_any(model, dialect.cache_control),
        )
        self._pdf = dialect.pdf

    def image(self, url: str) -> Object:
        """See `ContentReader.image`."""
        return {"type": "image_url", "image_url": {"url": url}}

    def file(self, name: str, url: str) -> Object | None:
        """See `ContentReader.file`: a PDF that came with its bytes, if the dialect has a part for it."""
        if not self._pdf or not url.startswith("data:application/pdf;"):
            return None
        return self.image(url) if self._pdf == "image_url" else _file_part(name, url)


def _file_part(name: str, url: str) -> Object:
    return {"type": "file", "file": {"filename": name, "file_data": url}}


def is_call(piece: Piece) -> TypeGuard[ContentBlock]:
    return isinstance(piece, ContentBlock) and piece.type == "tool_use" and as_text(piece.name) != ""


def is_result(piece: Piece) -> TypeGuard[ContentBlock]:
    return (
        isinstance(piece, ContentBlock) and piece.type == "tool_result" and isinstance(piece.tool_use_id, str)
    )


class HistoryCall(msgspec.Struct, frozen=True):
    """A call whose result must follow."""

    asked: str
    """The id in the client's history."""
    sent: str
    name: str
    """The tool's name as sent."""


def with_results(
    messages: Iterable[Message], calls: Iterable[HistoryCall]
) -> tuple[dict[str, ContentBlock], list[tuple[Message, list[Piece]]]]:
    """The results of `calls` in these messages, by the id of the call as sent, and the messages with their
    other pieces. Of several results with one id each goes to the next call with that id."""
    waiting: defaultdict[str, list[HistoryCall]] = defaultdict(list)
    for call in reversed(list(calls)):
        waiting[call.asked].append(call)
    results: dict[str, ContentBlock] = {}
    others: list[tuple[Message, list[Piece]]] = []
    for message in messages:
        left: list[Piece] = []
        for piece in pieces(message.content):
            if is_result(piece) and waiting.get(piece.tool_use_id):
                results[waiting[piece.tool_use_id].pop().sent] = piece
            else:
                left.append(piece)
        others.append((message, left))
    return results, others


RESULT_WITHOUT_CALL = "[result of an earlier tool call]"
NO_RESULT = "[no result: cancelled]"
NO_OUTPUT = "(no output)"
NOTHING = "(no content)"
ERROR = "Error: "
"""Marks the result of a tool that failed, for which other protocols have no field."""


def result_text(block: ContentBlock) -> msgspec.Raw | None:
    """The result of a tool, if it is one text, as the JSON in which it came; else None."""
    if not block.holds_text:
        return None
    raw = bytes(block.content)
    return msgspec.Raw(b'"%b%b' % (ERROR.encode(), raw[1:]) if block.is_error is True else raw)


def as_reminder(text: str) -> str:
    """A message of the operator as Claude Code writes it into the user's."""
    return f"<system-reminder>\n{text}\n</system-reminder>"
