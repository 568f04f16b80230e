"""Replaces images by text, for a model that takes none.

Such a model refuses every later turn of a conversation that holds an image (translation.md, 2).
"""

from collections.abc import Iterator

from .json_edit import Body, BodyError, Edit, Span, elements, members

IMAGES = "messages.content.type=image"
"""The name under which it is stored that a model refuses images; see `field_paths`, which drops no image."""
OMITTED = "[image omitted]"
_TEXT = b'{"type":"text","text":"%b"' % OMITTED.encode()
_MARK = b'"image"'
_HELD_BY = (b'"tool_result"', b'"document"', b'"content"')
"""Types of objects that may hold images; the last is that of a document's source."""


def holds_image(body: Body) -> bool:
    """Whether a message may hold an image. A text cannot: its quotes are escaped."""
    place = body.span("messages")
    return place is not None and body.readable.find(_MARK, place.value, place.end) >= 0


def without_images(body: Body) -> list[Edit]:
    """Edits that replace each image, also in results of tools and in documents, by a text with the same
    `cache_control`; unreadable values stay."""
    place = body.span("messages")
    return list(_in_list(body.readable, place)) if place is not None and holds_image(body) else []


def _in_list(raw: bytes, place: Span) -> Iterator[Edit]:
    """In messages, or in content blocks."""
    if raw.find(_MARK, place.value, place.end) < 0 or not raw.startswith(b"[", place.value):
        return
    try:
        places = elements(raw, place.value, place.end)
    except BodyError:
        return
    for at in places:
        if raw.startswith(b"{", at.value):
            yield from _in_object(raw, at)


def _in_object(raw: bytes, place: Span) -> Iterator[Edit]:
    try:
        fields = members(raw, place.value, place.end)
    except BodyError:  # a key stands twice
        return
    kind = fields.get("type")
    if kind is not None and raw[kind.value : kind.end] == _MARK:
        cache = fields.get("cache_control")
        kept = b',"cache_control":%b' % raw[cache.value : cache.end] if cache is not None else b""
        yield Edit(place.value, place.end, b"%b%b}" % (_TEXT, kept))
        return
    if kind is not None and raw[kind.value : kind.end] not in _HELD_BY:
        return
    inner = fields.get("content") or fields.get("source")
    if inner is None:
        return
    yield from _in_object(raw, inner) if raw.startswith(b"{", inner.value) else _in_list(raw, inner)
