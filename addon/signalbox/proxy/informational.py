"""Answers before the answer: 103 Early Hints and the like."""

from mitmproxy.proxy import events, layer
from mitmproxy.proxy.layers.http import Http1Client


def skip_informational(speaker: Http1Client) -> None:
    """Let the connection read on for the answer itself.

    mitmproxy takes a 1xx for the answer and would be done with the request (mitmproxy.md, 30).
    """

    def read_on(**_: bool) -> layer.CommandGenerator[None]:
        del speaker.mark_done
        speaker.response = None
        speaker.state = speaker.read_headers
        if speaker.buf:
            yield from speaker.state(events.DataReceived(speaker.conn, b""))

    speaker.mark_done = read_on  # type: ignore[method-assign]  # for once, on this one connection
