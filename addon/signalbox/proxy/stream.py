"""mitmproxy's HTTP stream with Signalbox's edges.

Three things happen here because no hook can do them: the real credentials are put in when a request is
sent, so that they never stand in a flow; a refusal leaves before the request's body is in; whatever goes
wrong below the hooks becomes an answer in Anthropic's shape instead of an HTML page or a silent client.
"""

import asyncio
import logging
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from mitmproxy import http
from mitmproxy.flow import Error
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layers.http import (
    DropStream,
    Http1Client,
    HttpConnectHook,
    HttpErrorHook,
    HttpLayer,
    HttpRequestHeadersHook,
    HttpResponseHook,
    HttpStream,
    RequestEndOfMessage,
    RequestHeaders,
    RequestProtocolError,
    RequestTrailers,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
    ResponseTrailers,
    SendHttp,
    validate_request,
)
from mitmproxy.proxy.layers.http._events import ErrorCode

from signalbox.proxy.answers import error, too_large
from signalbox.proxy.faults import in_words, is_exhausted, place
from signalbox.proxy.flows import exchanges, hosts
from signalbox.proxy.heads import fault, handed_on
from signalbox.proxy.merging import merge_chunks
from signalbox.proxy.requests import copied, mask_headers, mask_repeated, plain_headers
from signalbox.proxy.speaker import speaker
from signalbox.routing import outcome as outcomes
from signalbox.routing.exchange import Exchange

log = logging.getLogger("signalbox")

THINKS = 0.02
"""Seconds after a request is sent in which hardly any provider answers."""

type Commands[T] = Generator[commands.Command, Any, T]


class LeakError(Exception):
    """A secret was about to be sent to a provider that it does not belong to."""


@dataclass(eq=False)
class Pause(commands.Command):
    """The stream waits for one of its deadlines; what happens meanwhile waits too."""

    blocking = True


@dataclass(repr=False)
class PauseCompleted(events.CommandCompleted):
    command: Pause
    reply: None


@dataclass
class Tick(events.Event):
    """A deadline that the stream named has come."""

    now: float


class RouterStream(HttpStream):
    _merges = False
    _answered = False
    """Whether the head of an answer is on its way to the client."""

    @property
    def exchange(self) -> Exchange | None:
        return exchanges.get(self.flow) if hasattr(self, "flow") else None

    def _handle_event(self, event: events.Event) -> Commands[None]:
        try:
            if isinstance(event, Tick):
                yield from self._watched(self.on_tick(event.now))
            else:
                if isinstance(event, RequestTrailers | ResponseTrailers):
                    return  # an HTTP/1 connection cannot send them
                if isinstance(event, ResponseHeaders):
                    self._hear(event.response)
                    head = handed_on(event.response, self.flow.request)
                    event = ResponseHeaders(event.stream_id, head, event.end_stream)
                elif isinstance(event, ResponseProtocolError) and self.exchange is not None:
                    event.message = self.exchange.told_text(event.message)  # which may quote what came
                yield from self._watched(self.on_event(event))
        except LeakError as leak:
            log.error("request not sent: %s", leak)
            yield from self._fail(500, str(leak))
        except Exception as error:
            log.error("fault in the proxy: %s", place(error))
            yield from self._fail(500, "The router failed; its log says where.")

    def _hear(self, response: http.Response) -> None:
        """Every answer is heard once, whether it is delivered or not."""
        if self.exchange is not None and response.status_code >= 200:
            mask_repeated(response.headers, self.exchange)
            self.exchange.hear(response.status_code, plain_headers(response), time.monotonic())

    def breathe(self) -> Commands[bool]:
        """A piece of an answer was handled: let others go first, where much comes of little. False where the
        client has left meanwhile."""
        yield from ()
        return True

    def on_tick(self, now: float) -> Commands[None]:
        """One of `deadlines` has come."""
        yield from ()

    def on_event(self, event: events.Event) -> Commands[None]:
        """Something came from the client or from the upstream."""
        yield from super()._handle_event(event)

    def _watched(self, inner: Commands[None]) -> Commands[None]:
        """mitmproxy's own commands, with what is sent looked at on its way."""
        reply = None
        while True:
            try:
                command = inner.send(reply)
            except StopIteration:
                return
            reply = None
            if isinstance(command, SendHttp):
                event = command.event
                if isinstance(event, RequestHeaders):
                    event.request = self._with_secrets(event.request)
                elif isinstance(event, ResponseHeaders) and event.response.status_code >= 200:
                    if self._answered:
                        continue  # the client has the head of a stream already
                    self._answered = True
                    if self.exchange is not None and self.exchange.closes:
                        event.response.headers["connection"] = "close"
                elif isinstance(event, ResponseData) and command.connection is self.context.client:
                    if event.data:  # an empty chunk in mid-stream would end the answer
                        yield command
                    if not (yield from self.breathe()):
                        inner.close()
                        return
                    continue
                elif isinstance(event, ResponseEndOfMessage) and self._is_broken():
                    cut = ResponseProtocolError(self.stream_id, "broken answer", ErrorCode.KILL)
                    command = SendHttp(cut, command.connection)
                elif isinstance(event, ResponseProtocolError) and self._can_answer(event):
                    yield from self._send(self._failure(event))
                    continue
            reply = yield command
            if isinstance(command, SendHttp) and isinstance(command.event, RequestEndOfMessage):
                self._was_sent()
            if isinstance(command, HttpConnectHook):  # no flow of a CONNECT goes further than this
                mask_headers(self.flow.request.headers)
            if isinstance(command, HttpRequestHeadersHook) and self._is_refused():
                inner.close()
                yield from self._refuse()
                return

    def state_wait_for_request_headers(self, event: RequestHeaders) -> Commands[None]:
        if (host := event.request.host_header) is not None:
            hosts[event.request] = host
        yield from super().state_wait_for_request_headers(event)

    def _was_sent(self) -> None:
        """The provider thinks now: time to work out what its answer may be read with. But not at once, since
        what of a long request the network has not taken yet leaves from the event loop too."""
        exchange = self.exchange
        if exchange is not None and exchange.outgoing is not None and exchange.outgoing.estimates:
            asyncio.get_running_loop().call_later(THINKS, exchange.estimate)

    def _is_broken(self) -> bool:
        """Whether the answer could not be decoded to its end: the client must not take it for whole."""
        exchange = self.exchange
        return exchange is not None and exchange.reader is not None and exchange.reader.broken

    # sending

    def _with_secrets(self, request: http.Request) -> http.Request:
        """A copy that holds the real credentials; the flow keeps the masked ones (mitmproxy.md, 17)."""
        exchange = self.exchange
        if exchange is None:
            return request
        real = copied(request)
        for name, (shown, secrets) in exchange.hidden.items():
            if real.headers.get_all(name) == shown:
                real.headers.set_all(name, secrets)
        if real.path == exchange.shown_path:
            real.path = exchange.path
        if leak := exchange.leak(real.path, list(real.headers.items(multi=True))):
            name = exchange.provider.shown if exchange.provider else "the provider"
            raise LeakError(f"{leak} holds an Anthropic credential that is not {name}'s own")
        return real

    # answers

    def state_stream_response_body(self, event: events.Event) -> Commands[None]:
        if not self._merges:
            self._merges = True
            if isinstance(upstream := speaker(self._parent, self.context.server), Http1Client):
                merge_chunks(upstream)
        yield from super().state_stream_response_body(event)

    def state_wait_for_response_headers(self, event: ResponseHeaders) -> Commands[None]:
        if wrong := fault(event.response.status_code, self.flow.request, may_switch=True):
            yield commands.CloseConnection(self.context.server)
            broken = ResponseProtocolError(self.stream_id, wrong, ErrorCode.GENERIC_SERVER_ERROR)
            yield from self.handle_protocol_error(broken)
        else:
            yield from super().state_wait_for_response_headers(event)

    # refusing

    def check_invalid(self, request: bool) -> Commands[bool]:
        """What mitmproxy refuses meets no hook of the router's, but is shown and saved."""
        if request and validate_request(
            self.mode, self.flow.request, self.context.options.validate_inbound_headers
        ):
            mask_headers(self.flow.request.headers)
        return (yield from super().check_invalid(request))

    def _is_refused(self) -> bool:
        exchange = self.exchange
        return exchange is not None and exchange.kind == "refused"

    def check_body_size(self, request: bool) -> Commands[bool]:
        exchange = self.exchange
        if not (request and exchange and exchange.ours):
            return (yield from super().check_body_size(request))
        if len(self.request_body_buf) <= exchange.rules.body_limit:
            return False
        exchange.kind = "refused"
        self.flow.response = too_large(exchange)
        yield from self._refuse()
        return True

    def _refuse(self) -> Commands[None]:
        """Answer now. What is still coming of the request is read and thrown away, so that the client,
        which may read only after it has written, gets to see the answer."""
        assert self.flow.response
        self.request_body_buf.clear()
        self.flow.response.headers["connection"] = "close"
        yield HttpResponseHook(self.flow)
        yield from self._send(self.flow.response)
        self.client_state = self.server_state = self.state_errored
        self.flow.live = False
        yield DropStream(self.stream_id)

    # failing

    def handle_protocol_error(self, event: RequestProtocolError | ResponseProtocolError) -> Commands[None]:
        exchange = self.exchange
        if exchange is not None and isinstance(event, RequestProtocolError):
            exchange.ending = "cancelled"
            exchange.attempted("cancelled")
        elif exchange is not None and exchange.ending != "cancelled":
            exchange.ending = "error"
            exchange.attempted("stream_error")
            if not exchange.ours:
                exchange.outcome = outcomes.CONNECT.because(in_words(event.message))
            if self._can_answer(event):
                self.flow.response = self._failure(event)
        yield from super().handle_protocol_error(event)

    def _can_answer(self, event: RequestProtocolError | ResponseProtocolError) -> bool:
        return (
            not self._answered
            and self.exchange is not None
            and event.code.http_status_code() is not None
            and event.code is not ErrorCode.KILL
        )

    def _failure(self, event: RequestProtocolError | ResponseProtocolError) -> http.Response:
        """What a client is told instead of mitmproxy's HTML page, where a request is only passed on."""
        status = event.code.http_status_code() or 502
        where = f"{self.flow.request.host}:{self.flow.request.port}"
        said = in_words(event.message)
        if event.code is ErrorCode.CONNECT_FAILED and is_exhausted(event.message):
            status, said = 503, f"the router can open no more connections: {said}"
        elif event.code is ErrorCode.CONNECT_FAILED:
            said = f"the upstream could not be reached at {where}: {said}"
        elif status == 502:
            said = f"the upstream at {where} broke off before it answered: {said}"
        return error(status, said, self.exchange)

    def _fail(self, status: int, message: str) -> Commands[None]:
        """The stream cannot go on: tell the client, or cut it where it already has part of an answer."""
        exchange = self.exchange
        if exchange is not None:
            exchange.ending = "error"
        if not self._answered and hasattr(self, "flow"):
            self.flow.response = error(status, message, exchange, {"connection": "close"})
            yield from self._send(self.flow.response)
        else:
            yield SendHttp(
                ResponseProtocolError(self.stream_id, message, ErrorCode.KILL), self.context.client
            )
        if hasattr(self, "flow"):
            self.flow.error = Error(message)
            self.flow.live = False
            yield HttpErrorHook(self.flow)
        if self.context.server in self._parent.connections and self.server_state not in (
            self.state_done,
            self.state_errored,
            self.state_uninitialized,
        ):
            cancelled = RequestProtocolError(self.stream_id, message, ErrorCode.CANCEL)
            yield SendHttp(cancelled, self.context.server)
        self.client_state = self.server_state = self.state_errored
        yield DropStream(self.stream_id)

    def _send(self, response: http.Response) -> Commands[None]:
        content = b"" if self.flow.request.method == "HEAD" else response.raw_content
        client = self.context.client
        if self.client_state != self.state_done:
            response.headers["connection"] = "close"
        yield SendHttp(ResponseHeaders(self.stream_id, response, not content), client)
        self._answered = True
        if content:
            yield SendHttp(ResponseData(self.stream_id, content), client)
        yield SendHttp(ResponseEndOfMessage(self.stream_id), client)

    @property
    def _parent(self) -> HttpLayer:
        """The layer of the client's connection."""
        parent = self.context.layers[self.context.layers.index(self) - 1]
        assert isinstance(parent, HttpLayer)
        return parent
