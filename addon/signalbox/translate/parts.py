"""Content of one message: text, images and documents, in the form that a provider takes."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from signalbox.translate.dialects import Dialect, matches, sees
from signalbox.translate.incoming import Block, Content, Piece, Source, pieces
from signalbox.translate.shapes import as_object, as_text
from signalbox.translate.texts import is_said, joined, text_of

_MEDIA_TYPES = {"image/jpg": "image/jpeg"}


class Part(msgspec.Struct, frozen=True):
    text: str = ""
    media: dict[str, Any] | None = None
    """A part of another type than text."""
    cache: dict[str, str] | None = None
    """The `cache_control` to send with it."""

    @property
    def sent(self) -> dict[str, Any]:
        part = self.media or {"type": "text", "text": self.text}
        return part | {"cache_control": self.cache} if self.cache else part


def content_of(parts: Sequence[Part], by: str = "\n") -> str | list[dict[str, Any]]:
    """One string wherever it can be, which is what all servers understand (openai-chat.md, 1)."""
    if any(part.media or part.cache for part in parts):
        return [part.sent for part in parts]
    return joined((part.text for part in parts), by)


class Parts:
    """Reads content for one provider and model."""

    def __init__(self, dialect: Dialect, model: str, notes: Counter[str]) -> None:
        self._dialect = dialect
        self._sees = sees(model, dialect)
        self._caches = matches(model, dialect.cache_control)
        self._notes = notes

    def read(self, content: Content) -> list[Part]:
        return [part for piece in pieces(content) for part in self.of(piece)]

    def of(self, piece: Piece) -> list[Part]:
        """Nothing for what is blank. Its `cache_control` goes with the last part."""
        source = piece.source if isinstance(piece, Block) and isinstance(piece.source, Source) else Source()
        if isinstance(piece, Block) and piece.type == "image":
            parts = [self._image(source)]
        elif isinstance(piece, Block) and piece.type == "document":
            parts = self._document(piece, source)
        else:
            parts = [Part(text_of(piece))]
        parts = [part for part in parts if part.media or is_said(part.text)]
        if parts and (cache := self.cache(piece)):
            parts[-1] = msgspec.structs.replace(parts[-1], cache=cache)
        return parts

    def cache(self, piece: Piece) -> dict[str, str] | None:
        """Its `cache_control`, for models that need to be told (openai-chat.md, 1)."""
        told = as_object(piece.cache_control) if self._caches and isinstance(piece, Block) else {}
        if told.get("type") != "ephemeral":
            return None
        ttl = told.get("ttl")
        return {"type": "ephemeral", "ttl": ttl} if isinstance(ttl, str) else {"type": "ephemeral"}

    def _image(self, source: Source) -> Part:
        url = _url(source) if self._sees else ""
        if not url or not (self._dialect.image_urls or url.startswith("data:")):
            self._notes["images omitted"] += 1
            return Part(joined(("[image omitted]", as_text(source.url))))
        return Part(media={"type": "image_url", "image_url": {"url": url}})

    def _document(self, block: Block, source: Source) -> list[Part]:
        """Text as text, with images that it holds; a PDF where the provider takes one (translation.md, 2)."""
        title, context = as_text(block.title), as_text(block.context)
        if source.type == "content":
            return [Part(title), Part(context), *self.read(source.content)]
        if source.type == "text":
            return [Part(text_of(block))]
        return [Part(context), self._file(title, source)]

    def _file(self, title: str, source: Source) -> Part:
        url = _url(source)
        is_pdf = url.startswith("data:application/pdf;")
        if is_pdf and self._dialect.pdf == "file":
            name = title or "document.pdf"
            return Part(media={"type": "file", "file": {"filename": name, "file_data": url}})
        if is_pdf and self._dialect.pdf == "image_url":
            return Part(media={"type": "image_url", "image_url": {"url": url}})
        self._notes["documents omitted"] += 1
        return Part(joined(("[document omitted]", title, as_text(source.url))))


def _url(source: Source) -> str:
    """Its address, or a data URL; empty for an uploaded file."""
    media_type, data = as_text(source.media_type).lower(), as_text(source.data)
    if media_type and data:
        return f"data:{_MEDIA_TYPES.get(media_type, media_type)};base64,{data}"
    return as_text(source.url)
