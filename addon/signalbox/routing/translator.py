"""What a provider's protocol does for one attempt: it reads the answer, and translates errors."""

from collections.abc import Callable, Iterable
from typing import Protocol

from signalbox.anthropic.answer_facts import AnswerFacts
from signalbox.anthropic.json_edit import Body


class UntranslatableError(Exception):
    """The request holds something that the provider's protocol cannot express. Its text is for people."""


class ResponseReader(Protocol):
    """Reads the body of one answer on its way to the client, in whatever pieces it arrives.

    Its output is in the Messages API: server-sent events or one JSON message. No method raises.
    """

    facts: AnswerFacts
    content_type: str | None
    """Of the output; None if the provider's own head stays as it is, length and encoding included."""
    changes: bool
    """The output may have another length than the input."""
    decodes: bool
    """The input's content-encoding does not hold for the output."""

    @property
    def finished(self) -> bool:
        """A translated answer has ended; at most its usage is still to come."""
        ...

    @property
    def over(self) -> bool:
        """A translated answer has ended and reported its usage, though its connection may stay open."""
        ...

    def feed(self, data: bytes) -> bytes:
        """The client's bytes for this input."""
        ...

    def pieces(self, data: bytes) -> Iterable[bytes]:
        """`feed` in pieces of bounded size, however well `data` is compressed. Each is decoded when it is
        asked for; an empty one means that there is no output yet."""
        ...

    def end(self) -> bytes:
        """The client's last bytes."""
        ...


class Translator(Protocol):
    """Made with the request of one attempt; immutable."""

    @property
    def is_identity(self) -> bool:
        """The provider speaks the Messages API: its errors need no translation."""
        ...

    def reader(
        self,
        content_type: str,
        content_encoding: str,
        *,
        request_id: str,
        key: bytes | None,
        estimate: Callable[[], int] | None,
        decode: bool,
    ) -> ResponseReader:
        """Reads an answer with a 2xx status and this head.

        `request_id` goes into error events, `key` is the one of the digests of thinking blocks, `estimate`
        counts the request's input tokens for a stream that starts without a count. `decode` asks for a
        decoded answer even if nothing else of it changes.
        """
        ...

    def refusals(self, status: int, error: bytes, request: Body) -> Iterable[str]:
        """Names of what the provider does not take, read from its error to `request`, beside the fields and
        betas that every provider may name. They are stored for its model; the next request is prepared
        without it."""
        ...

    def error(self, status: int, body: bytes) -> tuple[int, bytes]:
        """Status and body, in the Messages API, of an error with another status, decoded."""
        ...
