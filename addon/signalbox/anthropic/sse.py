"""Splits a stream into server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html"""

from typing import Literal, NamedTuple

LARGEST = 16 * 1024 * 1024
"""Bytes of one event."""

_BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    name: str
    """From the `event:` line, else empty."""
    data: bytes
    """Lines of several `data:` fields joined by newlines."""


type Form = Literal["unknown", "events", "json", "page", "other"]
"""The form of a body by its first bytes; unknown while there is only white space."""


def form_of(data: bytes | bytearray, *, is_announced: bool) -> Form:
    """The form by the first byte, since some providers declare a JSON error as a stream, or a stream as
    something else. `is_announced`: the content type is that of a stream; it decides if the byte does not. A
    byte order mark may stand before it."""
    first = data.lstrip().removeprefix(_BOM).lstrip()[:1]
    if not first:
        return "unknown"
    if first in b"{[":
        return "json"
    if is_announced or first in b"edir:\xef":
        return "events"
    return "page" if first == b"<" else "other"


def is_event_stream(content_type: str) -> bool:
    """Whether a `content-type` header names a stream of events."""
    return "event-stream" in content_type.lower()


class Splitter:
    """Cuts a stream into events at blank lines, for any chunking and any line ends.

    Events of more than `largest` bytes are skipped and not buffered.
    `pending`: an event has begun and not ended.
    """

    def __init__(self, *, largest: int = LARGEST) -> None:
        self._largest = largest
        self._held = bytearray()
        self._after_cr = False
        self._first = True
        self._skipping = False

    @property
    def pending(self) -> bool:
        return len(self._held) > self._held.startswith(b"\n")

    @property
    def size(self) -> int:
        """Bytes of `held`."""
        return len(self._held)

    @property
    def held(self) -> bytes:
        """The bytes of an event that is not complete."""
        return bytes(self._held)

    def skip(self, pending: bytes) -> bool:
        """Skips the events in `pending`, which is `held` and the bytes after it, without cutting them out.
        Returns False, and does nothing, if they must be looked at."""
        if self._after_cr or self._skipping or len(pending) > self._largest or b"\r" in pending:
            return False
        if (end := pending.rfind(b"\n\n")) >= 0:
            self._held = bytearray(pending[end + 2 :])
        else:
            self._held = bytearray(pending)
        return True

    def feed(self, data: bytes) -> list[bytes]:
        """The events that are complete, each without its blank line and with newlines as line ends."""
        before = len(self._held)
        self._held += self._with_newlines(data)
        if self._held.find(b"\n\n", max(before - 1, 0)) < 0:
            self._shed()
            return []
        *blocks, self._held = self._held.split(b"\n\n")
        if self._skipping:
            self._skipping = False
            del blocks[0]
        self._shed()
        return self._events(blocks)

    def end(self) -> list[bytes]:
        """The last event, if its blank line is missing, as at some providers."""
        rest, self._held = self._held, bytearray()
        return [] if self._skipping else self._events([rest])

    def _with_newlines(self, data: bytes) -> bytes:
        if not data:
            return data
        if self._after_cr:
            data = data.removeprefix(b"\n")
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        self._after_cr = False
        return data

    def _events(self, blocks: list[bytearray]) -> list[bytes]:
        events = [bytes(block.strip(b"\n")) for block in blocks if len(block) <= self._largest]
        if self._first and blocks:
            self._first = False
            events[:1] = [event.removeprefix(_BOM) for event in events[:1]]
        return [event for event in events if event]

    def _shed(self) -> None:
        if len(self._held) > self._largest + 1:
            self._skipping = True
            del self._held[:-1]


def parse_event(block: bytes) -> Event:
    """Name and data of one event; comments and other fields are ignored."""
    name, data = b"", []
    for line in block.splitlines():
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ")
    return Event(name.decode(errors="replace"), b"\n".join(data))


def parse_bare_event(block: bytes) -> Event:
    """The event; also JSON without `data:`, as some proxies write an error into a stream."""
    event = parse_event(block)
    bare = block.lstrip()
    return Event(event.name, bare) if not event.data and bare.startswith(b"{") else event
