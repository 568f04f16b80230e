"""Reads answers of other protocols: bytes in, the bytes of a Messages answer out.

What the protocols share: content encodings, whole answers and streams, whichever was asked for, and bounds.
What an event means is known to the `AnswerStream` of each protocol.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal, Protocol, Self

import msgspec
from msgspec.structs import replace

from .answer_facts import AnswerFacts
from .encoding import PIECE, ContentDecoder, EncodingError
from .sse import Splitter, form_of, is_event_stream
from .writer import EVENTS, JSON, LARGEST, MessageBuilder, MessagesEvent, Writer, encode_events

_PAGE = "the answer is a web page; look at the provider's url"


class AnswerStream(Protocol):
    """Turns the answer of another protocol into events of the Messages API: no bytes out, no I/O.

    A fault is noted in `facts` (`cut`, `provider_error`).
    """

    facts: AnswerFacts

    @property
    def over(self) -> bool:
        """See `ResponseReader.over`."""
        ...

    @property
    def finished(self) -> bool:
        """See `ResponseReader.finished`."""
        ...

    def event(self, block: bytes) -> None:
        """Takes one event of a stream, as `Splitter` cuts it out."""
        ...

    def last_event(self, block: bytes) -> None:
        """Takes an event whose blank line is missing at the end of a stream; it may be cut short."""
        ...

    def whole(self, body: bytes) -> None:
        """Takes an answer that is not streamed, to its end."""
        ...

    def end(self) -> None:
        """The provider's stream has ended."""
        ...

    def drain(self) -> list[MessagesEvent]:
        """The events for the client since the last call."""
        ...


class AnswerContext(msgspec.Struct, frozen=True, kw_only=True):
    """What a translated answer is written with, besides what its provider says."""

    provider: str
    model: str
    """As sent; the answer names it if the provider does not name one."""
    seed: str
    """Random letters and digits that make the ids of this answer unique."""
    names: Mapping[str, str]
    """Client's tool names by the names sent, where they differ."""
    wants_stream: bool
    """Whether the client asked for a stream; some providers only stream."""
    shows_thinking: bool
    """Whether the client asked for thinking."""
    response_model: str | None = None
    """The model that the client asked for. If set, the answer names it, whatever the provider reports."""
    secrets: tuple[str, ...] = ()
    """Removed from the provider's errors."""
    request_id: str = ""
    """Of this answer, for its errors."""
    key: bytes | None = None
    """For digests of thinking blocks; None digests none."""
    estimate: Callable[[], int] | None = None
    """Gives the input tokens for `message_start`, and for a provider that reports none."""

    def of_answer(self, request_id: str, key: bytes | None, estimate: Callable[[], int] | None) -> Self:
        """With what is known once an answer comes."""
        return replace(self, request_id=request_id, key=key, estimate=estimate)

    def writer(self, facts: AnswerFacts, sign: Callable[[str], str]) -> Writer:
        """Writes the stream of the answer; see `Writer`. If the client gets it as it is, what was written is
        noted in `facts`."""
        return Writer(
            f"msg_{self.seed}",
            self.model,
            sign,
            facts=facts if self.wants_stream else None,
            key=self.key,
            response_model=self.response_model,
            estimate=self.estimate,
        )


class TranslatedReader:
    """A `ResponseReader` that translates: into events if the client asked for a stream, else into one
    message.

    Some providers send JSON for a streamed request, or a stream with another `content-type`, and errors in
    any format, so the first bytes decide how the answer is read.
    """

    changes = decodes = True

    def __init__(
        self,
        stream: AnswerStream,
        context: AnswerContext,
        content_type: str,
        content_encoding: str,
    ) -> None:
        """`content_type` decides if the first bytes are neither a stream's nor JSON."""
        self.facts = stream.facts
        self.content_type: str | None = EVENTS if context.wants_stream else JSON
        self._stream = stream
        self._message = None if context.wants_stream else MessageBuilder()
        self._key = context.key
        self._is_announced = is_event_stream(content_type)
        self._form: Literal["unknown", "events", "json"] = "unknown"
        self._splitter = Splitter()
        self._held = bytearray()
        self._decoder: ContentDecoder | None = None
        try:
            self._decoder = ContentDecoder(content_encoding) if content_encoding else None
        except EncodingError as error:
            self.facts.cut = str(error)

    @property
    def over(self) -> bool:
        """See `ResponseReader.over`."""
        return self._stream.over

    @property
    def finished(self) -> bool:
        """See `ResponseReader.finished`."""
        return self._stream.finished

    def feed(self, data: bytes) -> bytes:
        """The client's bytes for this input."""
        return b"".join(self.pieces(data))

    def pieces(self, data: bytes) -> Iterable[bytes]:
        """`feed` in pieces of bounded size; see `ResponseReader`."""
        if self.facts.cut:
            return ()
        if self._decoder is None and len(data) <= PIECE:
            return (self._process(data),)
        return self._decoded(data)

    def _decoded(self, data: bytes) -> Iterator[bytes]:
        pieces = (self._decoder or ContentDecoder("")).pieces(data)
        while not self.facts.cut:
            try:
                piece = next(pieces, None)
            except EncodingError as error:
                self.facts.cut = f"its content-encoding is {error}"
                return
            if piece is None:
                return
            yield self._process(piece)

    def end(self) -> bytes:
        """The client's last bytes."""
        if self.facts.cut:
            return b""
        try:
            if self._decoder is not None:
                self._decoder.end()
            return self._counted(self._last())
        except EncodingError as error:
            self.facts.cut = f"its content-encoding is {error}"
        except Exception as error:
            self.facts.cut = f"{type(error).__name__} while it was translated"
        return b""

    def _process(self, piece: bytes) -> bytes:
        """On any error nothing more is passed on: the client must not get the provider's own protocol."""
        try:
            return self._counted(self._translated(piece))
        except Exception as error:
            self.facts.cut = f"{type(error).__name__} while it was translated"
            return b""

    def _counted(self, out: bytes) -> bytes:
        self.facts.size += len(out)
        return out

    def _translated(self, piece: bytes) -> bytes:
        if self._form == "unknown":
            piece = piece.lstrip()
            if not self._knows_form(piece):
                return b""
        if self._form == "events":
            for block in self._splitter.feed(piece):
                self._stream.event(block)
            return self._written()
        self._held += piece
        if len(self._held) > LARGEST:
            self.facts.cut = "the answer is too large"
        return b""

    def _knows_form(self, piece: bytes) -> bool:
        match form_of(piece, is_announced=self._is_announced):
            case "events" | "json" as form:
                self._form = form
            case "page":
                self.facts.cut = _PAGE
            case "other":
                self.facts.cut = "the answer is neither a stream nor JSON"
        return self._form != "unknown"

    def _last(self) -> bytes:
        """The bytes that the client has not got at the end of the provider's answer."""
        if self._form == "unknown":
            self.facts.cut = "the answer has no body"
            return b""
        if self._form == "json":
            self._stream.whole(bytes(self._held))
        else:
            for block in self._splitter.end():
                self._stream.last_event(block)
            self._stream.end()
        out = self._written()
        if self._message is None or self.facts.cut:
            return out
        self._message.fill(self.facts, self._key)
        return self._message.encoded()

    def _written(self) -> bytes:
        """The new events as bytes for the client; empty if `message` collects them."""
        events = self._stream.drain()
        if self._message is None:
            return encode_events(events) if events else b""
        self._message.add(events)
        return b""
