"""The one interface: how the answers to one request become Anthropic's.

A request that was sent in the Messages protocol has one too (`PASSING`), so that nobody has to ask which is
which.
"""

from collections.abc import Iterator
from typing import Protocol


class UntranslatableError(Exception):
    """The request holds something that the provider's protocol has no words for. Its text is for people."""


class Answer(Protocol):
    """An answer with a 2xx status on its way to the client: fed as it arrives, in any pieces.

    What `feed` and `end` give is Anthropic's: server-sent events where the request is streamed, else one JSON
    message, which comes from `end`. Neither raises, whatever comes.
    """

    content_type: str | None
    """Of what is given; None leaves the provider's own head as it is, coding and length too."""
    error: bytes | None
    """The body of an error that the provider reported inside its answer, in its own words."""
    cut: str
    """Why the answer ended too early, for people; empty where it did not. Then its connection is cut."""

    @property
    def over(self) -> bool:
        """Whether nothing of it is to come any more, though its connection may stay open."""
        ...

    @property
    def finished(self) -> bool:
        """Whether at the most its usage is to come."""
        ...

    def feed(self, data: bytes) -> bytes: ...

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """What `feed` gives in pieces, each made of a bounded amount of the answer when it is asked for; an
        empty one says that there is nothing to give yet."""
        ...

    def end(self) -> bytes: ...


class Translation(Protocol):
    """One attempt's; immutable."""

    @property
    def passes(self) -> bool:
        """Whether the provider speaks the Messages protocol: then its errors are the client's as they are."""
        ...

    def answer(self, content_type: str, content_encoding: str, request_id: str) -> Answer:
        """The way back of an answer with a 2xx status and this head. `request_id` is told with an error."""
        ...

    def error(self, status: int, body: bytes) -> tuple[int, bytes]:
        """An answer with another status, decoded, in Anthropic's shape."""
        ...


class Passed:
    """An answer that is Anthropic's already."""

    content_type: str | None = None
    error: bytes | None = None
    cut = ""
    over = finished = False

    def feed(self, data: bytes) -> bytes:
        return data

    def pieces(self, data: bytes) -> Iterator[bytes]:
        yield data

    def end(self) -> bytes:
        return b""


class Passing:
    """No translation: the provider speaks the Messages protocol."""

    passes = True

    def answer(self, content_type: str, content_encoding: str, request_id: str) -> Answer:
        return Passed()

    def error(self, status: int, body: bytes) -> tuple[int, bytes]:
        return status, body


PASSING = Passing()
