"""One piece of an answer for each read from the network, not for each of its HTTP chunks.

Providers send a chunk for every event. mitmproxy makes an event, a callback and a send of each, though dozens
may have come in one read; put together they cost a fraction, and none leaves later than it would.
"""

from typing import Any

import h11
from mitmproxy.proxy.layers.http import Http1Client


def merge_chunks(speaker: Http1Client) -> None:
    """Let what comes of the answer that is read come in whole reads."""
    if not isinstance(speaker.body_reader, Merged):
        speaker.body_reader = Merged(speaker.body_reader)  # type: ignore[assignment]  # as a reader


class Merged:
    """A body reader of h11 that gives all the data that is there as one `Data`."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._after: Any = None
        """What came after data, or went wrong there: it is told next."""

    def __call__(self, buffer: Any) -> Any:
        if self._after is not None:
            after, self._after = self._after, None
            if isinstance(after, h11.ProtocolError):
                raise after
            return after
        pieces: list[bytes] = []
        try:
            while isinstance(event := self._inner(buffer), h11.Data):
                pieces.append(bytes(event.data))
        except h11.ProtocolError as fault:
            event = fault
        if not pieces:
            if isinstance(event, h11.ProtocolError):
                raise event
            return event
        self._after = event
        return h11.Data(data=b"".join(pieces))

    def read_eof(self) -> Any:
        return self._inner.read_eof()
