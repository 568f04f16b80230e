"""Counts tokens with OpenAI's own counter, `POST {url}/responses/input_tokens` (openai-responses.md, 1)."""

from collections.abc import Callable, Iterator
from typing import ClassVar

import msgspec

from signalbox.anthropic.answer_facts import AnswerFacts
from signalbox.anthropic.encoding import ContentDecoder, EncodingError
from signalbox.anthropic.errors import read_error
from signalbox.anthropic.issued import ThinkingBlock
from signalbox.anthropic.json_edit import UNREADABLE, Body
from signalbox.anthropic.writer import JSON
from signalbox.responses.translator import ResponsesTranslator

PATH = "/responses/input_tokens"
_LARGEST = 64 * 1024
"""Bytes of an answer, which is a few numbers."""


class _Count(msgspec.Struct):
    input_tokens: int


_count = msgspec.json.Decoder(_Count)


class CountTranslator(msgspec.Struct, frozen=True):
    """A `routing.translator.Translator` for requests that only count tokens."""

    is_identity: ClassVar[bool] = False
    may_refuse_late: ClassVar[bool] = False
    errors: ResponsesTranslator
    """Translates errors, which are those of other requests."""

    def reader(
        self,
        content_type: str,
        content_encoding: str,
        *,
        request_id: str,
        key: bytes | None = None,
        estimate: Callable[[], int] | None = None,
        decode: bool = True,
    ) -> "CountReader":
        """See `Translator.reader`."""
        return CountReader(content_encoding)

    def refusals(self, status: int, error: bytes, request: Body) -> tuple[str, ...]:
        """See `Translator.refusals`: nothing is learned from a request that only counts."""
        return ()

    def carries(self, block: ThinkingBlock) -> bool:
        """See `Translator.carries`."""
        return self.errors.carries(block)

    def error(self, status: int, body: bytes) -> tuple[int, bytes]:
        """See `Translator.error`."""
        return self.errors.error(status, body)


class CountReader:
    """A `ResponseReader` that gives `{"input_tokens": N}`."""

    changes = decodes = True
    content_type: str | None = JSON

    def __init__(self, content_encoding: str) -> None:
        self.facts = AnswerFacts()
        self._held = bytearray()
        self._decoder = ContentDecoder("")
        try:
            self._decoder = ContentDecoder(content_encoding)
        except EncodingError as fault:
            self.facts.cut = str(fault)

    @property
    def finished(self) -> bool:
        """See `ResponseReader.finished`."""
        return self.facts.complete

    over = finished

    def feed(self, data: bytes) -> bytes:
        """The client's bytes for this input."""
        return b"".join(self.pieces(data))

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """See `ResponseReader`: nothing before the end."""
        try:
            for piece in self._decoder.pieces(data):
                self._held += piece
                if len(self._held) > _LARGEST:
                    self.facts.cut = self.facts.cut or "the answer is too large"
                    return
                yield b""
        except EncodingError as fault:
            self.facts.cut = f"its content-encoding is {fault}"

    def end(self) -> bytes:
        """The client's bytes."""
        if self.facts.cut:
            return b""
        body = bytes(self._held)
        try:
            self._decoder.end()
            tokens = _count.decode(body).input_tokens
        except EncodingError as fault:
            self.facts.cut = f"its content-encoding is {fault}"
        except UNREADABLE:
            report = read_error(body)
            if report.is_error:
                self.facts.provider_error = body
                self.facts.error = report.type_and_message
            else:
                self.facts.cut = "the answer is no count of tokens"
        else:
            out = msgspec.json.encode({"input_tokens": tokens})
            self.facts.complete = True
            self.facts.size = len(out)
            return out
        return b""
