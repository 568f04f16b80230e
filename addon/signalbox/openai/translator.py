"""The translator for chat completions, one per attempt, and the reader of its answer."""

from collections.abc import Callable, Iterable, Iterator
from typing import ClassVar, Literal

import msgspec

from signalbox.anthropic.answer_facts import AnswerFacts
from signalbox.anthropic.encoding import PIECE, ContentDecoder, EncodingError
from signalbox.anthropic.errors import error_body
from signalbox.anthropic.json_edit import Body
from signalbox.anthropic.redaction import without_secrets
from signalbox.anthropic.sse import Event, Splitter, form_of, is_event_stream, parse_event
from signalbox.anthropic.writer import EVENTS, JSON, LARGEST, MessageBuilder, encode_events
from signalbox.openai.chunks import (
    EndOfStream,
    ErrorChunk,
    Malformed,
    Step,
    chunk_steps,
    parse_chunk,
    parse_object,
    plain_text,
)
from signalbox.openai.dialects import Dialect, matches_any
from signalbox.openai.errors import anthropic_error
from signalbox.openai.refusals import refusals
from signalbox.openai.request import ChatRequest
from signalbox.openai.stream import ChatStream

_PAGE = "the answer is a web page; look at the provider's url"


class ChatTranslator(msgspec.Struct, frozen=True):
    """A `routing.translator.Translator`."""

    is_identity: ClassVar[bool] = False
    request: ChatRequest
    dialect: Dialect
    provider: str
    model: str
    """The model as sent; the answer names it if the provider does not name one."""
    seed: str
    """Random letters and digits that make the ids of this answer unique."""
    response_model: str | None = None
    """The model that the client asked for. If set, the answer names it, whatever the provider reports."""
    secrets: tuple[str, ...] = ()
    """Removed from the provider's errors."""

    def reader(
        self,
        content_type: str,
        content_encoding: str,
        *,
        request_id: str,
        key: bytes | None = None,
        estimate: Callable[[], int] | None = None,
        decode: bool = True,
    ) -> "ChatReader":
        """See `Translator.reader`."""
        facts = AnswerFacts()
        streams = self.request.stream
        stream = ChatStream(
            facts,
            names=self.request.names,
            shows_thinking=self.request.shows_thinking,
            signed=matches_any(self.model, self.dialect.signed_calls),
            provider=self.provider,
            model=self.model,
            seed=self.seed,
            request_id=request_id,
            stops=self.request.stops,
            secrets=self.secrets,
            writes=facts if streams else AnswerFacts(),
            key=key,
            response_model=self.response_model,
            estimate=estimate if streams else None,
        )
        return ChatReader(
            stream,
            content_encoding,
            message=None if streams else MessageBuilder(),
            is_announced=is_event_stream(content_type),
            key=key,
        )

    def refusals(self, status: int, error: bytes, request: Body) -> Iterator[str]:
        """See `Translator.refusals`."""
        return refusals(status, error, request)

    def error(self, status: int, body: bytes) -> tuple[int, bytes]:
        """See `Translator.error`."""
        shown = anthropic_error(status, without_secrets(body, self.secrets), self.provider, self.model)
        return shown.status, error_body(shown.status, shown.message, shown.type)


class ChatReader:
    """A `ResponseReader` that translates: into events if the client asked for a stream, else into one
    message.

    Some providers send JSON for a streamed request, or a stream with another `content-type`, and errors in
    any format, so the first bytes decide how the answer is read.
    """

    changes = decodes = True

    def __init__(
        self,
        stream: ChatStream,
        content_encoding: str,
        *,
        message: MessageBuilder | None,
        is_announced: bool,
        key: bytes | None,
    ) -> None:
        """`message` collects the events if the client asked for a whole message. `is_announced`: the
        `content-type` names a stream; it decides if the first bytes are neither a stream's nor JSON."""
        self.facts = stream.facts
        self.content_type: str | None = EVENTS if message is None else JSON
        self._stream = stream
        self._message = message
        self._key = key
        self._is_announced = is_announced
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
                text = plain_text(block)
                if text is None or not self._stream.add_text(text):
                    self._stream.take(parse_chunk(_event(block)))
            return self._written(())
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
            out = self._written(self._whole())
        else:
            last = (step for block in self._splitter.end() for step in parse_chunk(_event(block)))
            out = self._written(step for step in last if not isinstance(step, Malformed))
            self._stream.end()
            out += self._written(())
        if self._message is None or self.facts.cut:
            return out
        self._message.fill(self.facts, self._key)
        return self._message.encoded()

    def _whole(self) -> Iterable[Step]:
        value = parse_object(bytes(self._held))
        if value is None:
            self.facts.cut = "the answer is not JSON"
        elif "choices" in value:
            yield from chunk_steps(value, bytes(self._held))
            yield EndOfStream()
        else:
            yield ErrorChunk(bytes(self._held))

    def _written(self, steps: Iterable[Step]) -> bytes:
        """The steps as bytes for the client; empty if `message` collects them."""
        self._stream.take(steps)
        events = self._stream.drain()
        if self._message is None:
            return encode_events(events) if events else b""
        self._message.add(events)
        return b""


def _event(block: bytes) -> Event:
    """The event. Some proxies write a bare JSON error into a stream, without `data:`."""
    event = parse_event(block)
    bare = block.lstrip()
    return Event(event.name, bare) if not event.data and bare.startswith(b"{") else event
