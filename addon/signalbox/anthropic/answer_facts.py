"""The facts that the reader of an answer learns, the same for every protocol."""

from dataclasses import dataclass, field

from .api import Usage


@dataclass(slots=True)
class AnswerFacts:
    """Filled in by the attempt's reader as the answer arrives. A fact that is set stays set."""

    usage: Usage = field(default_factory=Usage)
    message_id: str = ""
    cache_miss_reason: str = ""
    """The provider's reason why it read less from its cache (anthropic-messages.md, 1)."""
    began: bool = False
    """The answer itself has begun: the start of a tool call, a delta, or a whole message came."""
    stopped: bool = False
    """A stop reason came."""
    complete: bool = False
    """`message_stop` or a whole JSON answer came."""
    is_stream: bool = False
    """At least one event came, whatever the head declares."""
    error: tuple[str, str] | None = None
    """Type and message of an `event: error` or of a JSON error body."""
    provider_error: bytes | None = None
    """The body of an error inside the answer, as the provider sent it."""
    foreign: str = ""
    """Why no client of the Messages API can read the answer, for people: it is of another protocol, or an
    error in another format. `error` is set too."""
    fault: str = ""
    """Why the answer could not be read, for people. Holds no part of the answer."""
    undecodable: bool = False
    """`fault` is about the content-encoding, so that the bytes may be a valid answer."""
    broken: bool = False
    """The rest cannot be decoded for the client: nothing more follows, and the connection is to be cut."""
    cut: str = ""
    """Why an answer that is translated or reshaped ended too early, for people. The connection is to be
    cut."""
    size: int = 0
    """Decoded bytes of the Messages API that were read or written."""
    issued: list[bytes] = field(default_factory=list)
    """Digests of the thinking blocks that have ended (see `issued.ThinkingBlock.digest`)."""

    @property
    def is_answer(self) -> bool:
        """There is an answer, or there may be one that cannot be decoded."""
        return self.complete or self.began or self.undecodable

    @property
    def ended(self) -> bool:
        """The answer is complete. A stream with neither a stop reason nor `message_stop` is not: its
        connection was closed early, which HTTP cannot always show. Also true if the answer could not be
        read."""
        return self.complete or self.stopped or bool(self.fault)
