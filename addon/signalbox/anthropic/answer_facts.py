"""What is learned from one answer, in any protocol."""

from dataclasses import dataclass, field

from .api import Usage


@dataclass(slots=True)
class AnswerFacts:
    """Filled in by the attempt's reader as the answer comes in; nothing in it is taken back."""

    usage: Usage = field(default_factory=Usage)
    message_id: str = ""
    began: bool = False
    """Something of the answer itself came: a tool's start, a delta, a whole message."""
    stopped: bool = False
    """A stop reason came."""
    complete: bool = False
    """`message_stop` or a whole JSON answer came."""
    is_stream: bool = False
    """At least one event came, whatever the head says."""
    error: tuple[str, str] | None = None
    """Type and message of an `event: error` or of a JSON error body."""
    provider_error: bytes | None = None
    """Body of the error that a translated answer reported, in the provider's own words."""
    foreign: str = ""
    """Why no client of the Messages API could read the answer, for people: another protocol, or an error of
    another shape. `error` is set too."""
    fault: str = ""
    """Why the answer could not be read, for people; holds nothing of the answer."""
    undecodable: bool = False
    """The fault is its content-encoding, so that it may be an answer all the same."""
    broken: bool = False
    """The rest cannot be decoded for the client: nothing more comes, and the connection is to be cut."""
    cut: str = ""
    """Why a translated answer ended too early, for people. The connection is to be cut."""
    size: int = 0
    """Decoded bytes of the Messages API that were read or written."""
    issued: list[bytes] = field(default_factory=list)
    """Digests of the thinking blocks that have ended (see `issued.ThinkingBlock.digest`)."""

    @property
    def is_answer(self) -> bool:
        """There is an answer, or may be one that cannot be decoded."""
        return self.complete or self.began or self.undecodable

    @property
    def ended(self) -> bool:
        """What came is a whole answer. A stream whose connection just closes, which HTTP cannot always tell
        from its end, has neither a stop reason nor `message_stop`. True where the answer was not read."""
        return self.complete or self.stopped or bool(self.fault)
