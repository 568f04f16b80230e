"""The stream that reads every answer as Anthropic's: what another protocol says is translated as it comes in.

So holding, failing over and delivering know one protocol only.
"""

from collections.abc import Iterator

from mitmproxy import http
from mitmproxy.proxy import events
from mitmproxy.proxy.layers.http import (
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseTrailers,
)

from signalbox.proxy import answering
from signalbox.proxy.failover import FailoverStream
from signalbox.proxy.stream import Commands
from signalbox.routing import outcome as outcomes
from signalbox.routing.prepare import Outgoing
from signalbox.translate.translation import Answer, Passed

EVENTS = "text/event-stream"


class TranslatingStream(FailoverStream):
    _answer: Answer = Passed()
    _answers: Outgoing | None = None
    """The request that it answers."""

    def on_event(self, event: events.Event) -> Commands[None]:
        if isinstance(event, ResponseHeaders) and event.response.status_code >= 200:
            self._begin(event.response)
        if self._answer.content_type is None:
            yield from super().on_event(event)
            return
        for translated in self._translated(event):
            if self._held is not None:
                self._held.reported = self._answer.error
            yield from super().on_event(translated)
            if self._ours is None or self._ours.outgoing is not self._answers:
                return  # that attempt has failed, and another one is on
            self._ping_when_silent()
        if self._answer.cut and self.server_state != self.state_errored:
            why = f"broke off: {self._answer.cut}"
            yield from self._failed(502, why, outcomes.STREAM_ERROR.because(self._answer.cut))

    def _ping_when_silent(self) -> None:
        """Chat completions know no pings, and a model may think for long without a word."""
        streams = (self._answer.content_type or "").startswith(EVENTS)
        if streams and self._delivering and self.server_state == self.state_stream_response_body:
            self.deadlines.set("ping", answering.HELD)

    def _begin(self, response: http.Response) -> None:
        """An answer of the current attempt: its head becomes that of what the client gets."""
        exchange = self._ours
        self._answers = outgoing = exchange.outgoing if exchange is not None else None
        self._answer = Passed()
        if outgoing is None or not 200 <= response.status_code < 300:
            return
        headers = response.headers
        self._answer = outgoing.translation.answer(
            headers.get("content-type", ""), headers.get("content-encoding", "")
        )
        if self._answer.content_type is None:
            return
        for name in ("content-length", "content-encoding", "transfer-encoding"):
            headers.pop(name, None)
        headers["content-type"] = self._answer.content_type
        if self.flow.request.http_version == "HTTP/1.1":
            headers["transfer-encoding"] = "chunked"

    def _translated(self, event: events.Event) -> Iterator[events.Event]:
        if isinstance(event, ResponseData):
            if data := self._answer.feed(event.data):
                yield ResponseData(self.stream_id, data)
            elif self._ours is not None:
                self.deadlines.set("idle", self._ours.timeout.idle)
        elif isinstance(event, ResponseEndOfMessage):
            if data := self._answer.end():
                yield ResponseData(self.stream_id, data)
            self._read_to_end = True
            if not self._answer.cut:
                yield event
        elif not isinstance(event, ResponseTrailers):
            yield event
