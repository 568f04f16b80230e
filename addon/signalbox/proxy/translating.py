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
    ResponseProtocolError,
    ResponseTrailers,
    SendHttp,
)

from signalbox.proxy import answering
from signalbox.proxy.failover import FailoverStream
from signalbox.proxy.held import is_stream
from signalbox.proxy.stream import Commands
from signalbox.routing import outcome as outcomes
from signalbox.routing.tried import Tried
from signalbox.translate.translation import Answer, Passed

LINGER = 1.0
"""Seconds that a provider has to end an answer in which it has said all: then its connection is kept."""
USAGE = 2.0
"""Seconds that it has to tell the usage of an answer that has ended."""


class TranslatingStream(FailoverStream):
    _answer: Answer = Passed()
    _answers: Tried | None = None
    """The attempt that it answers."""

    def on_event(self, event: events.Event) -> Commands[None]:
        if isinstance(event, ResponseHeaders):
            self._begin(event.response)
        if self._answer.content_type is None:
            yield from super().on_event(event)
            return
        if isinstance(event, ResponseProtocolError) and self._is_finished:
            event = ResponseEndOfMessage(self.stream_id)
        for translated in self._translated(event):
            if self._held is not None:
                self._held.reported = self._answer.error
            if isinstance(translated, ResponseData) and not translated.data:
                yield SendHttp(translated, self.context.client)  # which is not sent
            else:
                yield from super().on_event(translated)
            if not self._is_current or self.server_state == self.state_done:
                return  # that attempt has failed, and another one is on or nobody takes over
            self._ping_when_silent()
        if self._answer.cut and self.server_state != self.state_errored:
            why = f"gave no whole answer: {self._answer.cut}"
            yield from self._failed(502, why, outcomes.STREAM_ERROR.because(self._answer.cut))
        elif isinstance(event, ResponseData):
            self._end_soon()

    @property
    def _is_current(self) -> bool:
        """Whether the answer is that of the attempt under way."""
        return self._ours is not None and self._ours.tried[-1] is self._answers

    @property
    def _is_finished(self) -> bool:
        """Whether it is whole, or an error, so that only its end is missing, and maybe its usage."""
        return self._answer.finished and self._is_current

    def _end_soon(self) -> None:
        """Not each provider ends an answer after which its connection stays open."""
        if not self._is_finished:
            self.deadlines.clear("over")  # it says more after all
        elif self._answer.over:
            self.deadlines.clear("ping")
            self.deadlines.keep("over", LINGER)
        else:
            self.deadlines.keep("over", USAGE)

    def on_due(self, name: str) -> Commands[None]:
        if name != "over":
            yield from super().on_due(name)
        elif self._is_finished:
            yield from self._let_go()
            yield from self.on_event(ResponseEndOfMessage(self.stream_id))

    def _ping_when_silent(self) -> None:
        """Chat completions know no pings, and a model may think for long without a word."""
        if self._streams and self._delivering and self.server_state == self.state_stream_response_body:
            self.deadlines.set("ping", answering.HELD)

    def _begin(self, response: http.Response) -> None:
        """An answer of the current attempt: its head becomes that of what the client gets."""
        exchange = self._ours
        outgoing = exchange.outgoing if exchange is not None else None
        self._answer = Passed()
        self._is_stream, self._is_reshaped = is_stream(response), False
        if exchange is None or outgoing is None or not 200 <= response.status_code < 300:
            return
        headers = response.headers
        self._answers = exchange.tried[-1]
        self._answer = outgoing.translation.answer(
            headers.get("content-type", ""), headers.get("content-encoding", ""), exchange.request_id
        )
        if self._answer.content_type is None:
            return
        self._is_reshaped = outgoing.translation.passes
        for name in ("content-length", "content-encoding", "transfer-encoding"):
            headers.pop(name, None)
        headers["content-type"] = self._answer.content_type
        self._is_stream = self._is_stream and is_stream(response)
        response.status_code, response.reason = 200, "OK"  # a 204 could hold nothing of it
        if self.flow.request.http_version == "HTTP/1.1":
            headers["transfer-encoding"] = "chunked"

    def _translated(self, event: events.Event) -> Iterator[events.Event]:
        if isinstance(event, ResponseData):
            if self._ours is not None:
                self.deadlines.set("idle", self._ours.timeout.idle)
            for data in self._answer.pieces(event.data):
                yield ResponseData(self.stream_id, data)
        elif isinstance(event, ResponseEndOfMessage):
            if data := self._answer.end():
                yield ResponseData(self.stream_id, data)
            self._read_to_end = True
            if not self._answer.cut:
                yield event
        elif not isinstance(event, ResponseTrailers):
            yield event
