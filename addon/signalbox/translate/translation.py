"""The one interface: a request as its provider gets it, and the way back for the answer.

A request that needs no translation has one too (`PASSING`), so that nobody has to ask which is which.
"""

from typing import Protocol

import msgspec


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

    def feed(self, data: bytes) -> bytes: ...

    def end(self) -> bytes: ...


class Translation(Protocol):
    """One attempt: immutable, made from a body that it does not change."""

    body: bytes
    """As sent."""
    path: str | None
    """What is asked below the provider's URL; None leaves the path that the client asked for."""
    notes: tuple[str, ...]
    """What was changed, for the debug log: names and counts, never values."""

    def answer(self, content_type: str, content_encoding: str) -> Answer:
        """The way back of an answer with a 2xx status and this head."""
        ...

    def error(self, status: int, body: bytes) -> tuple[int, bytes]:
        """An answer with another status, decoded, in Anthropic's shape."""
        ...


class Passed:
    """An answer that is Anthropic's already."""

    content_type: str | None = None
    error: bytes | None = None
    cut = ""

    def feed(self, data: bytes) -> bytes:
        return data

    def end(self) -> bytes:
        return b""


class Passing(msgspec.Struct, frozen=True):
    """No translation: the provider speaks the Messages protocol."""

    body: bytes
    path: str | None = None
    notes: tuple[str, ...] = ()

    def answer(self, content_type: str, content_encoding: str) -> Answer:
        return Passed()

    def error(self, status: int, body: bytes) -> tuple[int, bytes]:
        return status, body
