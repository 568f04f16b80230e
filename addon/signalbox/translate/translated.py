"""An answer with a 2xx status as its bytes come in: a stream or JSON, whichever was asked for or is given."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

from signalbox.messages.encoding import Decoder, EncodingError
from signalbox.messages.sse import Event, Splitter, parse_event
from signalbox.translate.chunks import Broken, Done, Fault, Step, read, steps, steps_of
from signalbox.translate.stream import LARGEST, Stream
from signalbox.translate.whole import Message
from signalbox.translate.writer import encode

EVENTS = "text/event-stream; charset=utf-8"
JSON = "application/json"
_PAGE = "the answer is a web page; look at the provider's url"


def _event(block: bytes) -> Event:
    """Some proxies write an error into a stream as it is, without `data:`."""
    event = parse_event(block)
    bare = block.lstrip()
    return Event(event.name, bare) if not event.data and bare.startswith(b"{") else event


class Translated:
    """Becomes events where `streams`, else one message. Its form is told by its first byte: some send JSON
    where a stream was asked for, and errors in any form."""

    error: bytes | None = None
    cut = ""

    def __init__(self, stream: Stream, content_encoding: str, *, streams: bool, streamed: bool) -> None:
        """`streamed` is what the provider's `content-type` says, for what begins as neither."""
        self.content_type: str | None = EVENTS if streams else JSON
        self._stream = stream
        self._message = None if streams else Message()
        self._is_streamed = streamed
        self._form: Literal["unknown", "events", "json"] = "unknown"
        self._splitter = Splitter()
        self._held = bytearray()
        self._decoder = Decoder("")
        try:
            self._decoder = Decoder(content_encoding)
        except EncodingError as error:
            self.cut = str(error)

    @property
    def over(self) -> bool:
        return self._stream.over

    @property
    def finished(self) -> bool:
        return self._stream.finished

    def feed(self, data: bytes) -> bytes:
        return b"".join(self.pieces(data))

    def pieces(self, data: bytes) -> Iterator[bytes]:
        decoded = self._decoder.pieces(data)
        while not self.cut:
            out = None
            with self._kept_from_the_client():
                if (piece := next(decoded, None)) is None:
                    return
                out = self._through(piece)
            if out is not None:
                yield out

    def end(self) -> bytes:
        with self._kept_from_the_client():
            return b"" if self.cut else self._last()
        return b""

    @contextmanager
    def _kept_from_the_client(self) -> Iterator[None]:
        """Whatever fails, what is left must never be told in the provider's own protocol."""
        try:
            yield
        except EncodingError as error:
            self.cut = f"its content-encoding is {error}"
        except Exception as error:
            self.cut = f"{type(error).__name__} while it was translated"

    def _through(self, piece: bytes) -> bytes:
        if self._form == "unknown":
            piece = piece.lstrip()
            if not piece:
                return b""
            self._form = self._form_of(piece)
        if self._form == "events":
            return self._taken(
                step for block in self._splitter.feed(piece) for step in steps_of(_event(block))
            )
        if self._form == "json":
            self._held += piece
            if len(self._held) > LARGEST:
                self.cut = "the answer is too large"
        return b""

    def _form_of(self, piece: bytes) -> Literal["unknown", "events", "json"]:
        if piece[0] in b"{[":
            return "json"
        if self._is_streamed or piece[0] in b"edir:\xef":
            return "events"
        is_page = piece[0] in b"<"
        self.cut = _PAGE if is_page else "the answer is neither a stream nor JSON"
        return "unknown"

    def _last(self) -> bytes:
        """What is still owed to the client."""
        if self._form == "json":
            out = self._taken(self._whole())
        elif self._form == "unknown":
            self.cut = "the answer has no body"
            return b""
        else:
            last = (step for block in self._splitter.end() for step in steps_of(_event(block)))
            out = self._taken(step for step in last if not isinstance(step, Broken))
            self._stream.end()
            out += self._taken(())
        return out if self._message is None or self.cut else self._message.encoded()

    def _whole(self) -> Iterable[Step]:
        value = read(bytes(self._held))
        if value is None:
            self.cut = "the answer is not JSON"
        elif "choices" in value:
            yield from steps(value, bytes(self._held))
            yield Done()
        else:
            yield Fault(bytes(self._held))

    def _taken(self, steps: Iterable[Step]) -> bytes:
        self._stream.take(steps)
        self.error, self.cut = self._stream.error, self.cut or self._stream.cut
        events = self._stream.taken()
        if self._message is None:
            return encode(events) if events else b""
        self._message.add(events)
        return b""
