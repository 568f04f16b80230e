"""The translator for the Messages API, and a reader that turns a stream into a message, or a message into
one.

Clients read only the form that they asked for: Claude Code fails on a stream that answers `stream: false`,
and gives up streaming after a whole message (claude-code-observed.md; translation.md, 6).
"""

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import msgspec

from signalbox.anthropic.encoding import ContentDecoder, EncodingError
from signalbox.anthropic.errors import error_in, in_anthropics_shape, shows_error
from signalbox.anthropic.images import IMAGES, holds_image
from signalbox.anthropic.issued import ThinkingBlock
from signalbox.anthropic.json_edit import Body, BodyError, elements, members
from signalbox.anthropic.reader import MessagesReader, Rewrites
from signalbox.anthropic.sse import Form, Splitter, form_of, is_event_stream, parse_event
from signalbox.anthropic.unsupported_fields import refuses_images
from signalbox.anthropic.writer import EVENTS, JSON, LARGEST, MessageBuilder, encode_events, events_of

_ENDS = (b"\n\n", b"\r\n\r\n")
"""Ends of an event."""

_DONE = b"[DONE]"
"""With which other protocols end a stream; some providers send it here too."""
_NOT_READ = "it could not be read as an answer of the Messages API"

_object = msgspec.json.Decoder(dict[str, Any])


class IdentityTranslator(msgspec.Struct, frozen=True):
    """A `routing.translator.Translator` that translates nothing."""

    is_identity: ClassVar[bool] = True
    may_refuse_late: ClassVar[bool] = False
    stream: bool | None = None
    """Whether the client asked for a stream; None if an answer of either form is passed on."""
    provider: str = ""
    response_model: str | None = None
    """The model that the client asked for, if another one is sent; the answer names it."""
    reshapes_errors: bool = False
    """Whether errors in another shape than Anthropic's are put into it."""
    rewrites_errors: bool = False
    """Whether errors about a prompt that is too long get Anthropic's wording."""

    def reader(
        self,
        content_type: str,
        content_encoding: str,
        *,
        request_id: str = "",
        key: bytes | None = None,
        estimate: Callable[[], int] | None = None,
        decode: bool = False,
    ) -> "MessagesReader | ReshapingReader":
        """See `Translator.reader`."""
        is_stream = is_event_stream(content_type)
        is_asked = self.stream is None or is_stream is self.stream
        reader = MessagesReader(
            content_type if is_asked else EVENTS if self.stream else JSON,
            content_encoding if is_asked else "",
            rewrites=Rewrites(self.response_model, estimate, self.rewrites_errors),
            decode=decode,
            key=key,
            provider=self.provider,
            request_id=request_id,
        )
        return reader if is_asked else ReshapingReader(reader, content_encoding, streams=bool(self.stream))

    def refusals(self, status: int, error: bytes, request: Body) -> tuple[str, ...]:
        """See `Translator.refusals`."""
        return (IMAGES,) if refuses_images(status, error) and holds_image(request) else ()

    def carries(self, block: ThinkingBlock) -> bool:
        """See `Translator.carries`: thinking that is in the body at all was sent as it is."""
        return True

    def error(self, status: int, body: bytes) -> tuple[int, bytes]:
        """See `Translator.error`. An error in Anthropic's shape stays as it is."""
        return status, in_anthropics_shape(status, body) if self.reshapes_errors else body


class ReshapingReader:
    """A `ResponseReader` that gives events if it `streams`, else one message.

    The first byte decides what the answer is, whatever its head declares. An answer that has the form asked
    for is passed on, in whole events. The output goes through `reader`, which observes and rewrites it.
    """

    changes = decodes = True

    def __init__(self, reader: MessagesReader, content_encoding: str, *, streams: bool) -> None:
        self.facts = reader.facts
        self.content_type: str | None = EVENTS if streams else JSON
        self._reader = reader
        self._streams = streams
        self._form: Form = "unknown"
        self._held = bytearray()
        self._splitter = Splitter()
        self._message = MessageBuilder()
        self._decoder = ContentDecoder("")
        try:
            self._decoder = ContentDecoder(content_encoding)
        except EncodingError as fault:
            self.facts.cut = str(fault)

    @property
    def over(self) -> bool:
        """See `ResponseReader.over`."""
        return self.finished

    @property
    def finished(self) -> bool:
        """See `ResponseReader.finished`."""
        return self._message.ended or self.facts.provider_error is not None

    def feed(self, data: bytes) -> bytes:
        """The client's bytes for this input."""
        return b"".join(self.pieces(data))

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """`feed` in pieces of bounded size; see `ResponseReader`."""
        decoded = self._decoder.pieces(data)
        while not self.facts.cut:
            out = b""
            try:
                if (piece := next(decoded, None)) is None:
                    return
                out = self._reshaped(piece)
            except EncodingError as fault:
                self.facts.cut = f"its content-encoding is {fault}"
            except Exception:
                self.facts.cut = _NOT_READ
            if not self.facts.cut:
                yield from self._reader.pieces(out) if out else (b"",)

    def end(self) -> bytes:
        """The client's last bytes."""
        out = b""
        if not self.facts.cut:
            try:
                self._decoder.end()
                out = self._last()
            except EncodingError as fault:
                self.facts.cut = f"its content-encoding is {fault}"
            except Exception:
                self.facts.cut = _NOT_READ
        if self.facts.cut:
            return b""
        return (self._reader.feed(out) if out else b"") + self._reader.end()

    def _reshaped(self, piece: bytes) -> bytes:
        self._held += piece
        if self._form == "unknown":
            self._form = form_of(self._held, is_announced=True)
        if self._form == "events" and self._streams:
            ends = [at + len(mark) for mark in _ENDS if (at := self._held.rfind(mark)) >= 0]
            return self._taken(max(ends)) if ends else b""
        if self._form == "events":
            self._add(self._splitter.feed(self._taken(len(self._held))))
        elif len(self._held) > LARGEST:
            self.facts.cut = "the answer is too large"
        return b""

    def _taken(self, size: int) -> bytes:
        out = bytes(self._held[:size])
        del self._held[:size]
        return out

    def _add(self, blocks: list[bytes]) -> None:
        for block in blocks:
            name, data = parse_event(block)
            if not data or data == _DONE or self.finished:
                continue
            event = _object.decode(data)
            if "choices" in event:
                self.facts.cut = "the answer is a chat completion and no message; look at the provider's api"
                return
            if not event.get("type"):
                event["type"] = name or ("error" if shows_error(event) else "")
            self._message.add([event])
            if event["type"] == "error":
                self.facts.provider_error = data

    def _last(self) -> bytes:
        if self._form == "events" and self._streams:
            return self._taken(len(self._held))
        if self._form == "events":
            self._add(self._splitter.end())
            if not (self.finished or self._message.stopped):
                self.facts.cut = self.facts.cut or "the stream ended before its message did"
            return self._message.encoded()
        return self._whole(bytes(self._held))

    def _whole(self, data: bytes) -> bytes:
        """The client's bytes for a JSON answer. One that is neither a message nor an error is passed on."""
        if not self._streams:
            return data
        try:
            body = Body.parse(data)
        except BodyError:
            return data
        if body.get("type", str) == "error":
            self.facts.provider_error = data
            return b"event: error\n" + _data(data)
        if "choices" in body or error_in(body) is not None:
            return _data(data)  # another protocol's; the reader of events reports it
        if "content" not in body:
            return data
        return encode_events(list(events_of(_with_arguments_as_written(body))))


def _data(json: bytes) -> bytes:
    return b"data: " + msgspec.json.encode(msgspec.json.decode(json)) + b"\n\n"


def _with_arguments_as_written(body: Body) -> dict[str, Any]:
    message, place = _object.decode(body.readable), body.span("content")
    assert place is not None
    for block, at in zip(message["content"], elements(body.readable, place.value, place.end), strict=True):
        if "input" in block:
            input = members(body.readable, at.value, at.end)["input"]
            block["input"] = msgspec.Raw(body.readable[input.value : input.end])
    return message
