"""A stream and the client that waits for its answer: heard from early, told that nobody answers, or gone."""

import time

from mitmproxy.flow import Error
from mitmproxy.proxy.layers.http import (
    DropStream,
    HttpErrorHook,
    RequestProtocolError,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
    SendHttp,
)
from mitmproxy.proxy.layers.http._events import ErrorCode

from signalbox.messages.errors import error_event, error_type
from signalbox.proxy.answers import error, stream_head
from signalbox.proxy.asking import AskingStream
from signalbox.proxy.held import Held
from signalbox.proxy.stream import Commands
from signalbox.routing.exchange import Exchange
from signalbox.routing.outcome import Outcome

HELD = 10.0
"""Seconds for which a client hears nothing at most while another target could take over, and between two
pings after that (the contract, section 4). Claude Code gives up after 360 s without a status line, and never
while pings come (claude-code-observed.md)."""
PING = b'event: ping\ndata: {"type": "ping"}\n\n'


class AnsweringStream(AskingStream):
    at_once = frozenset({"hold", "ping"})

    _held: Held | None = None
    """The upstream's answer, until it is known whether it is the client's."""
    _opened = False
    """Whether the client was given the head of a stream of ours, because an answer was held for long."""
    _delivering = False
    """Whether the answer that is delivered has been chosen."""
    _told = ("api_error", "No provider answered.")
    """Type and message of the last failure, for a client to whom no status can be told any more."""

    @property
    def _ours(self) -> Exchange | None:
        """The exchange where it is one of the messages paths', with somebody to ask."""
        exchange = self.exchange
        return exchange if exchange is not None and exchange.ours and exchange.provider is not None else None

    @property
    def _begun(self) -> bool:
        """Whether something of the answer has reached the client, so that nothing can be tried again."""
        return self._answered and (self._delivering or not self._opened)

    @property
    def _streams(self) -> bool:
        """Whether the client wants a stream."""
        exchange = self.exchange
        return exchange is not None and exchange.facts is not None and exchange.facts.stream

    # a client that has waited long

    def on_due(self, name: str) -> Commands[None]:
        if name == "hold":
            yield from self._open()
        elif name == "ping":
            yield from self._ping()

    def _open_in_time(self) -> None:
        """From now on a client that wants a stream waits without a word for so long and no longer."""
        if self._streams and not self._opened:
            self.deadlines.keep("hold", HELD)

    def _open(self) -> Commands[None]:
        """Give the client the head of a stream, and pings from now on; failover stays possible."""
        exchange = self.exchange
        assert exchange is not None
        self._opened = exchange.head_given = True
        if self._held is not None:
            exchange.attempted(str(self._held.response.status_code))
        head = stream_head(exchange.headers(), chunked=self.flow.request.http_version == "HTTP/1.1")
        yield SendHttp(ResponseHeaders(self.stream_id, head, False), self.context.client)
        self._answered = True
        yield from self._ping()

    def _ping(self) -> Commands[None]:
        yield SendHttp(ResponseData(self.stream_id, PING), self.context.client)
        self.deadlines.set("ping", HELD)

    def _end_opened(self, failure: Outcome) -> Commands[None]:
        """All have failed, and the client has had status 200 already."""
        exchange = self._ours
        assert exchange is not None
        yield from self._let_go()
        yield SendHttp(
            ResponseData(self.stream_id, error_event(*self._told, exchange.request_id)), self.context.client
        )
        yield SendHttp(ResponseEndOfMessage(self.stream_id), self.context.client)
        yield from self._over(failure, self._told[1])

    # nobody answers

    def _answer_here(self, status: int, message: str, failure: Outcome) -> Commands[None]:
        """An error of the router's own, as far as a status can still be told."""
        exchange = self._ours
        assert exchange is not None
        if self._opened:
            self._told = (error_type(status), message)
            yield from self._end_opened(failure)
        else:
            self.flow.response = error(status, message, exchange)
            yield from self._send(self.flow.response)
            yield from self._over(failure, message)

    def _give_up(self, status: int, what: str, failure: Outcome) -> Commands[None]:
        """Nobody takes over: tell the client as far as that is still possible."""
        exchange = self._ours
        assert exchange is not None
        assert exchange.provider is not None
        message = f"{exchange.provider.shown} {what}"
        if others := exchange.others(time.monotonic()):
            message += f"; {others}"
        exchange.attempted(failure.label)
        yield from self._let_go()
        self._held = None
        if self._begun:
            cut = ResponseProtocolError(self.stream_id, message, ErrorCode.GENERIC_SERVER_ERROR)
            yield SendHttp(cut, self.context.client)
            yield from self._over(failure, message)
        else:
            yield from self._answer_here(status, message, failure)

    def _over(self, failure: Outcome, message: str) -> Commands[None]:
        exchange = self._ours
        assert exchange is not None
        exchange.outcome, exchange.ending = failure, "error"
        self.flow.error = Error(message)
        yield from self._ended()

    def _ended(self) -> Commands[None]:
        self.deadlines.clear_all()
        self.client_state = self.server_state = self.state_errored
        self.flow.live = False
        yield HttpErrorHook(self.flow)
        yield DropStream(self.stream_id)

    # a client that leaves

    def check_killed(self, emit_error_hook: bool) -> Commands[bool]:
        """Whether the client has left, or a person in mitmweb ended this, while the stream was waiting."""
        if not emit_error_hook:  # it is over in any case
            return (yield from super().check_killed(False))
        left = next((e for e in self._paused_event_queue if isinstance(e, RequestProtocolError)), None)
        if left is not None:
            yield from self._client_left(left)
            return True
        killed = yield from super().check_killed(True)
        if killed:
            self.deadlines.clear_all()
            yield from self._let_go()
            yield DropStream(self.stream_id)
        return killed

    def _client_left(self, event: RequestProtocolError) -> Commands[None]:
        """That is no provider's failure: whoever is asked is let go at once."""
        exchange = self.exchange
        if exchange is not None:
            exchange.ending = "cancelled"
            exchange.attempted("cancelled")
            if self._held is not None:
                exchange.reader = self._held.reader
        yield from self._let_go()
        self.flow.error = Error(event.message)
        yield from self._ended()
