"""The interface to a provider's protocol: it reads the answer of one attempt, and translates errors."""

from collections.abc import Callable, Iterable
from typing import Protocol

from signalbox.anthropic.answer_facts import AnswerFacts
from signalbox.anthropic.issued import ThinkingBlock
from signalbox.anthropic.json_edit import Body


class UntranslatableError(Exception):
    """The provider's protocol cannot express the request. The text is for people."""


class ResponseReader(Protocol):
    """Reads the body of one answer, in pieces of any size, and gives the bytes for the client.

    The output is of the Messages API: server-sent events or one JSON message. No method raises.
    """

    facts: AnswerFacts
    content_type: str | None
    """The content type of the output; None if the provider's own head is passed on, with length and
    encoding."""
    changes: bool
    """The output may have another length than the input."""
    decodes: bool
    """The output is decoded: the answer's content-encoding does not apply to it."""

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
        """`feed` in pieces of bounded size, however well `data` is compressed. Each piece is decoded when it
        is requested. An empty piece means that there is no output yet."""
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

    @property
    def may_refuse_late(self) -> bool:
        """The provider may refuse, in a stream that it began with a 200, what a repair can leave out of the
        request."""
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
        """The reader for an answer with a 2xx status and this head.

        `request_id` is for error events. `key` is the key for digests of thinking blocks. `estimate` gives
        the request's input tokens for a stream that starts without a count. `decode` asks for a decoded
        answer even if nothing else of it changes.
        """
        ...

    def refusals(self, status: int, error: bytes, request: Body) -> Iterable[str]:
        """Names of what the provider refuses, read from its error to `request`, besides the fields and betas
        that every provider may name. They are stored for the model, and the next request is prepared
        accordingly."""
        ...

    def carries(self, block: ThinkingBlock) -> bool:
        """Whether the request holds this thinking of the history, in whatever form the provider made it."""
        ...

    def error(self, status: int, body: bytes) -> tuple[int, bytes]:
        """Status and body for the client, for a decoded error whose status is not 2xx."""
        ...
