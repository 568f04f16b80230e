"""The stream that tries again: holds an answer until it has begun, and asks the next target where it fails.

mitmproxy's own stream goes from request to answer once. Here it may drop an answer, go back to waiting for
an answer's head, and send to a new address; hooks see the answer that is delivered and no other.
"""

import time
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal

from mitmproxy.flow import Error
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import (
    DropStream,
    GetHttpConnection,
    HttpErrorHook,
    RequestData,
    RequestEndOfMessage,
    RequestHeaders,
    RequestProtocolError,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
    ResponseTrailers,
    SendHttp,
)
from mitmproxy.proxy.layers.http._events import ErrorCode

from signalbox.messages.errors import error_event, error_type, read_error
from signalbox.proxy import release
from signalbox.proxy.answers import error, stream_head
from signalbox.proxy.faults import in_words
from signalbox.proxy.held import Held
from signalbox.proxy.hooks import SignalboxAttemptHook
from signalbox.proxy.requests import address
from signalbox.proxy.stream import Commands, Pause, RouterStream, Tick
from signalbox.routing import outcome as outcomes
from signalbox.routing.exchange import Exchange
from signalbox.routing.outcome import Outcome

HELD = 10.0
"""Seconds for which a stream's head and early events are held at most, and between two pings after that
(the contract, section 4)."""
PING = b'event: ping\ndata: {"type": "ping"}\n\n'

type Step = Literal["moved", "stays", "left"]
"""After a failure: another attempt is on, nobody takes over, or the client has left."""
type Answered = ResponseData | ResponseTrailers | ResponseEndOfMessage

_OF_AN_ANSWER = (ResponseHeaders, ResponseData, ResponseTrailers, ResponseEndOfMessage, ResponseProtocolError)


class FailoverStream(RouterStream):
    _held: Held | None = None
    _opened = False
    """Whether the client was given the head of a stream of ours, because an answer was held for long."""
    _delivering = False
    """Whether the answer that is delivered has been chosen."""
    _talks = False
    """Whether a request of ours is under way at `context.server`."""
    _reused = False
    """Whether that connection had served an earlier request."""
    _told = ("api_error", "No provider answered.")
    """Type and message of the last failure, for a client to whom no status can be told any more."""

    def __init__(self, context: Context, stream_id: int) -> None:
        super().__init__(context, stream_id)
        self.deadlines: dict[str, float] = {}

    @property
    def _ours(self) -> Exchange | None:
        """The exchange where it is one of the messages paths', with somebody to ask."""
        exchange = self.exchange
        return exchange if exchange is not None and exchange.ours and exchange.provider is not None else None

    @property
    def _begun(self) -> bool:
        """Whether something of the answer has reached the client, so that nothing can be tried again."""
        return self._answered and (self._delivering or not self._opened)

    # time

    @property
    def wakes_at(self) -> float:
        return min(self.deadlines.values(), default=float("inf"))

    def _set(self, name: str, seconds: float) -> None:
        self.deadlines[name] = time.monotonic() + seconds

    def _clear(self, *names: str) -> None:
        for name in names:
            self.deadlines.pop(name, None)

    def _due(self, now: float) -> Iterator[str]:
        """Each deadline that has come, once."""
        for name in [name for name, at in self.deadlines.items() if at <= now]:
            if self.deadlines.pop(name, None) is not None:
                yield name

    def handle_event(self, event: events.Event) -> Commands[None]:
        """While the stream waits for a connection or a hook, events queue up; two of them cannot wait."""
        if self._paused is None:
            yield from super().handle_event(event)
        elif isinstance(event, Tick):
            yield from self._tick_while_waiting(event.now)
        else:
            yield from super().handle_event(event)
            if isinstance(event, RequestProtocolError):
                yield from self._stop_waiting()

    def _tick_while_waiting(self, now: float) -> Commands[None]:
        for name in self._due(now):
            if name == "connect":
                yield from self._stop_waiting()
            elif name == "hold":
                yield from self._open()
            elif name == "ping":
                yield from self._ping()
            else:
                self._set(name, 0.1)  # for when the hook is over

    def _stop_waiting(self) -> Commands[None]:
        """The client has left, or it takes too long: what the stream waits for ends now."""
        command = self._paused.command if self._paused else None
        if isinstance(command, Pause):
            command.until = 0
        elif isinstance(command, GetHttpConnection):
            for server in release.pending(self._parent, command):
                yield commands.CloseConnection(server)

    def on_tick(self, now: float) -> Commands[None]:
        exchange = self._ours
        for name in self._due(now):
            if exchange is None or self.client_state == self.state_errored:
                continue
            if name == "hold":
                yield from self._open()
            elif name == "ping":
                yield from self._ping()
            elif name == "first_byte":
                yield from self._timed_out(f"sent no answer within {exchange.first_byte_limit:g} s")
            elif name == "idle" and release.writes_to(self.context.client):
                self._set("idle", exchange.timeout.idle)  # it is the client that does not read
            elif name == "idle":
                yield from self._timed_out(f"was silent for {exchange.timeout.idle:g} s")

    def _timed_out(self, what: str) -> Commands[None]:
        failure = outcomes.TIMEOUT.because(what)
        step: Step = "stays"
        if not self._begun:
            step = yield from self._move_on(failure)
        if step == "moved":
            yield from self._ask()
        elif step == "stays":
            yield from self._let_go()
            yield from self._give_up(504, what, failure)

    # asking

    def make_server_connection(self) -> Commands[bool]:
        exchange = self._ours
        if exchange is None:
            self._set("connect", HELD)
            try:
                return (yield from super().make_server_connection())
            finally:
                self._clear("connect")
        while True:
            limit = exchange.timeout.connect
            self._set("connect", limit)
            asked, began = time.time(), time.monotonic()
            where = (self.flow.request.host, self.flow.request.port)
            release.forget_failed(self._parent, where)
            connection, fault = yield GetHttpConnection(
                where,
                self.flow.request.scheme == "https",
                self.flow.server_conn.via,
                self.flow.server_conn.transport_protocol,
            )
            self._clear("connect")
            if (yield from self._killed()):
                return False
            if not fault:
                self.context.server = self.flow.server_conn = connection
                self._talks = True
                self._reused = (connection.timestamp_start or asked) < asked
                self._set("first_byte", exchange.first_byte_limit)
                return True
            if time.monotonic() - began >= limit:
                status, failure = 504, outcomes.TIMEOUT.because(f"no connection within {limit:g} s")
            else:
                status, failure = 502, outcomes.CONNECT.because(in_words(fault))
            step = yield from self._move_on(failure)
            if step == "stays":
                what = f"could not be reached at {where[0]}:{where[1]}: {failure.detail}"
                yield from self._give_up(status, what, failure)
            if step != "moved":
                return False

    def _ask(self) -> Commands[None]:
        """Send the request of the current attempt."""
        self.server_state = self.state_wait_for_response_headers
        if not (yield from self.make_server_connection()):
            return
        request, server = self.flow.request, self.context.server
        content = request.raw_content
        yield SendHttp(RequestHeaders(self.stream_id, request, not content), server)
        if content:
            yield SendHttp(RequestData(self.stream_id, content), server)
        yield SendHttp(RequestEndOfMessage(self.stream_id), server)

    def _move_on(self, failure: Outcome) -> Commands[Step]:
        """Let the failed attempt go and make the flow the next one's, if there is one."""
        exchange = self._ours
        if exchange is None or exchange.course is None:
            return "stays"
        following = exchange.course.failed(failure, time.monotonic())
        if following is None:
            return "stays"
        yield from self._let_go()
        if self._held is not None:
            self.flow.response = self._held.response
            self.flow.response.data.content = self._held.body()
            self._held = None
        exchange.outcome = failure
        yield SignalboxAttemptHook(self.flow)
        if (yield from self._killed()):
            return "left"
        self.flow.response = self.flow.error = None
        exchange.take(following.attempt)
        address(self.flow, exchange, following.attempt.outgoing)
        if following.wait:
            yield Pause(time.monotonic() + following.wait)
            if (yield from self._killed()):
                return "left"
        return "moved"

    # answers

    def state_wait_for_response_headers(self, event: ResponseHeaders) -> Commands[None]:
        exchange = self._ours
        if exchange is None or event.response.status_code < 200:
            yield from super().state_wait_for_response_headers(event)
            return
        self._clear("first_byte")
        self._set("idle", exchange.timeout.idle)
        course = exchange.course
        if course is None or not (self._opened or course.may_follow(time.monotonic())):
            yield from self._accept(event)
            return
        assert exchange.provider is not None
        own_key = exchange.provider.auth != "client"
        self._held = Held(event, own_key=own_key, provider=exchange.provider.url.host)
        self.server_state = self.state_hold
        if self._held.is_stream and not self._opened:
            self.deadlines.setdefault("hold", time.monotonic() + HELD)

    def state_hold(self, event: Answered) -> Commands[None]:
        held, exchange = self._held, self._ours
        assert held is not None
        assert exchange is not None
        self._set("idle", exchange.timeout.idle)
        told = held.feed(event, datetime.now(UTC))
        if told is None:
            return
        if told.kind != "success":
            self._told = read_error(held.error()) or self._told
            step = yield from self._move_on(told)
            if step == "moved":
                yield from self._ask()
            if step != "stays":
                return
        self._held = None
        if self._opened and not (held.is_stream and told.kind == "success"):
            yield from self._end_opened(told)
            return
        yield from self._accept(held.head)
        for kept in held.events:
            yield from self.server_state(kept)

    def _accept(self, head: ResponseHeaders) -> Commands[None]:
        """Deliver this answer: from here on nothing is tried again."""
        self._delivering = True
        self._clear("hold", "ping")
        yield from super().state_wait_for_response_headers(head)

    def state_stream_response_body(self, event: events.Event) -> Commands[None]:
        if "idle" in self.deadlines and (exchange := self.exchange) is not None:
            self._set("idle", exchange.timeout.idle)
        if isinstance(event, ResponseEndOfMessage):
            self.deadlines.clear()
        yield from super().state_stream_response_body(event)

    # a client that has waited long

    def _open(self) -> Commands[None]:
        """Give the client the head of a stream, and pings from now on; failover stays possible."""
        exchange = self.exchange
        assert exchange is not None
        self._opened = True
        head = stream_head(exchange.headers(), chunked=self.flow.request.http_version == "HTTP/1.1")
        yield SendHttp(ResponseHeaders(self.stream_id, head, False), self.context.client)
        self._answered = True
        yield from self._ping()

    def _ping(self) -> Commands[None]:
        yield SendHttp(ResponseData(self.stream_id, PING), self.context.client)
        self._set("ping", HELD)

    def _end_opened(self, failure: Outcome) -> Commands[None]:
        """All have failed, and the client has had status 200 already."""
        yield from self._let_go()
        yield SendHttp(ResponseData(self.stream_id, error_event(*self._told)), self.context.client)
        yield SendHttp(ResponseEndOfMessage(self.stream_id), self.context.client)
        yield from self._over(failure, self._told[1])

    # failing

    def handle_protocol_error(self, event: RequestProtocolError | ResponseProtocolError) -> Commands[None]:
        exchange = self._ours
        if exchange is None or self.server_state in (self.state_done, self.state_errored):
            yield from super().handle_protocol_error(event)
        elif isinstance(event, RequestProtocolError):
            yield from self._client_left(event)
        elif self._begun:
            exchange.outcome = outcomes.STREAM_ERROR.because(in_words(event.message))
            yield from super().handle_protocol_error(event)
        elif self._reused and self._held is None:
            self._reused = False  # a connection that was kept too long: no fault of the provider
            yield from self._let_go()
            yield from self._ask()
        else:
            failure = (outcomes.STREAM_ERROR if self._held else outcomes.CONNECT).because(
                in_words(event.message)
            )
            step = yield from self._move_on(failure)
            if step == "moved":
                yield from self._ask()
            elif step == "stays":
                where = f"at {self.flow.request.host}:{self.flow.request.port}"
                what = f"{where} broke off before it answered: {failure.detail}"
                yield from self._give_up(502, what, failure)

    def _give_up(self, status: int, what: str, failure: Outcome) -> Commands[None]:
        """Nobody takes over: tell the client as far as that is still possible."""
        exchange = self._ours
        assert exchange is not None
        assert exchange.provider is not None
        message = f"{exchange.provider.name} {what}"
        exchange.attempted(failure.label)
        self._held = None
        if self._begun:
            cut = ResponseProtocolError(self.stream_id, message, ErrorCode.GENERIC_SERVER_ERROR)
            yield SendHttp(cut, self.context.client)
            yield from self._over(failure, message)
        elif self._opened:
            self._told = (error_type(status), message)
            yield from self._end_opened(failure)
        else:
            self.flow.response = error(status, message, exchange.headers())
            yield from self._send(self.flow.response)
            yield from self._over(failure, message)

    def _over(self, failure: Outcome, message: str) -> Commands[None]:
        exchange = self._ours
        assert exchange is not None
        exchange.outcome, exchange.ending = failure, "error"
        self.flow.error = Error(message)
        yield from self._ended()

    def _ended(self) -> Commands[None]:
        self.deadlines.clear()
        self.client_state = self.server_state = self.state_errored
        self.flow.live = False
        yield HttpErrorHook(self.flow)
        yield DropStream(self.stream_id)

    # letting go

    def _killed(self) -> Commands[bool]:
        """Whether the client has left, or a person in mitmweb ended this, while the stream was waiting."""
        left = next((e for e in self._paused_event_queue if isinstance(e, RequestProtocolError)), None)
        if left is not None:
            yield from self._client_left(left)
            return True
        killed = yield from self.check_killed(True)
        if killed:
            self.deadlines.clear()
            yield DropStream(self.stream_id)
        return killed

    def _client_left(self, event: RequestProtocolError) -> Commands[None]:
        """That is no provider's failure: whoever is asked is let go at once."""
        exchange = self._ours
        if exchange is not None:
            exchange.ending = "cancelled"
            if not self._begun:
                exchange.attempted("cancelled")
        yield from self._let_go()
        self.flow.error = Error(event.message)
        yield from self._ended()

    def _let_go(self) -> Commands[None]:
        """Nothing of the current attempt reaches this stream any more (mitmproxy.md, 20)."""
        server, parent = self.context.server, self._parent
        self._clear("connect", "first_byte", "idle")
        if self._talks and server in parent.connections:
            if self._held is None or not self._held.complete:
                yield from self._abort()
            release.forget_stream(parent, server, self.stream_id)
        self._talks = False
        kept = (event for event in self._paused_event_queue if not isinstance(event, _OF_AN_ANSWER))
        self._paused_event_queue = deque(kept)
        self.response_body_buf.clear()

    def _abort(self) -> Commands[None]:
        """Cancel what is under way upstream, at once."""
        server, parent = self.context.server, self._parent
        shared = release.is_shared(parent, server)
        yield SendHttp(RequestProtocolError(self.stream_id, "given up", ErrorCode.CANCEL), server)
        if not shared:
            release.gone(parent).add(server)
            release.abort(self.context.client, server)
