"""The stream that tries again: holds an answer until it has begun, and asks the next target where it fails.

mitmproxy's own stream goes from request to answer once. Here it may drop an answer, go back to waiting for
an answer's head, and send to a new address; hooks see the answer that is delivered and no other.
"""

import time
from datetime import UTC, datetime
from typing import Literal

import msgspec
from mitmproxy import http
from mitmproxy.net.http.validate import validate_headers
from mitmproxy.proxy import events
from mitmproxy.proxy.layers.http import (
    RequestProtocolError,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
    ResponseTrailers,
)
from mitmproxy.proxy.layers.http._events import ErrorCode

from signalbox.messages.errors import read_error
from signalbox.messages.usage import Usage
from signalbox.proxy import release
from signalbox.proxy.answering import AnsweringStream
from signalbox.proxy.faults import in_words, is_exhausted
from signalbox.proxy.heads import fault
from signalbox.proxy.held import Held
from signalbox.proxy.hooks import SignalboxAttemptHook, SignalboxRenewHook
from signalbox.proxy.requests import address, show
from signalbox.proxy.stream import Commands
from signalbox.proxy.timed import TOO_LATE
from signalbox.routing import outcome as outcomes
from signalbox.routing.course import Next, Reject
from signalbox.routing.outcome import Outcome
from signalbox.translate.translation import PASSING

JUDGED_AFTER = 2.0
"""Seconds for which an error's body is waited for, to tell what it means."""
MENDABLE = (400, 422)
"""Statuses of refusals that may name what a request can do without."""

type Step = Literal["moved", "stays", "over"]
"""After a failure: another attempt is on, nobody takes over, or the request is over: its client has left,
or was answered by the router."""
type Answered = ResponseData | ResponseTrailers | ResponseEndOfMessage


class FailoverStream(AnsweringStream):
    _is_stream = False
    """Whether what comes says that it is a stream, and so does what the client would get."""
    _is_reshaped = False
    """Whether it is of the other form than was asked for."""
    _renewed = False
    """Whether the current attempt was sent anew already, because its connection had been kept too long."""

    @property
    def _where(self) -> str:
        return f"at {self.flow.request.host}:{self.flow.request.port}"

    @property
    def _is_last(self) -> bool:
        """Whether nobody could take over from the one that is asked: what it says is the client's at once."""
        course = self.exchange.course if self.exchange is not None else None
        return course is None or not course.may_follow(time.monotonic())

    @property
    def _may_wait(self) -> bool:
        """Whether an answer is held until it begins: another may take over, or the client gets pings."""
        return self._opened or not self._is_last

    # time

    def on_due(self, name: str) -> Commands[None]:
        exchange = self._ours
        if exchange is None or self.client_state == self.state_errored:
            return
        first_byte, idle = exchange.first_byte_limit, exchange.timeout.idle
        if name == "judge" and self._held is not None:
            yield from self._decide(self._held.judged(datetime.now(UTC)), is_cut=True)
        elif name == "first_byte" and self._is_sending():
            self.deadlines.set(name, first_byte)
        elif name == "first_byte":
            yield from self._timed_out(f"sent no answer within {first_byte:g} s")
        elif name == "idle" and release.unsent(self.context.client, self.context.client):
            self.deadlines.set(name, idle)  # it is the client that does not read
        elif name == "idle":
            yield from self._timed_out(f"was silent for {idle:g} s")
        else:
            yield from super().on_due(name)

    def _timed_out(self, what: str) -> Commands[None]:
        if self._held is not None and self._held.is_error:
            yield from self._decide(self._held.judged(datetime.now(UTC)), is_cut=True)
            return
        yield from self._failed(504, what, outcomes.TIMEOUT.because(what))

    def _failed(self, status: int, what: str, failure: Outcome) -> Commands[None]:
        """The attempt is over; what becomes of the request. `status` and `what` are told where nobody takes
        over."""
        step: Step = "stays"
        if not self._begun:
            step = yield from self._move_on(failure)
        if step == "moved":
            yield from self._ask()
        elif step == "stays":
            yield from self._give_up(status, what, failure)

    # asking

    def make_server_connection(self) -> Commands[bool]:
        exchange = self._ours
        if exchange is None:
            return (yield from self._make_pipe())
        while True:
            self.connect_limit = exchange.timeout.connect
            failed = yield from self._meet()
            if (yield from self.check_killed(True)):
                return False
            if not failed:
                self.deadlines.set("first_byte", exchange.first_byte_limit)
                if not self._is_last:
                    self._open_in_time()
                return True
            if failed == TOO_LATE:
                late = f"no connection within {self.connect_limit:g} s"
                status, failure = 504, outcomes.TIMEOUT.because(late)
            elif is_exhausted(failed):
                status, failure = 503, outcomes.EXHAUSTED.because(in_words(failed))
            else:
                status, failure = 502, outcomes.CONNECT.because(in_words(failed))
            step = yield from self._move_on(failure)
            if step == "stays":
                what = f"could not be reached {self._where}: {failure.detail}"
                if failure.kind == "local":
                    what = f"was not asked: the router can open no more connections: {failure.detail}"
                yield from self._give_up(status, what, failure)
            if step != "moved":
                return False

    def _make_pipe(self) -> Commands[bool]:
        if self.exchange is not None:
            self.connect_limit = self.exchange.timeout.connect
            self.deadlines.set("connect", self.connect_limit)
        made = yield from super().make_server_connection()
        self.deadlines.clear("connect")
        return made

    def _ask(self) -> Commands[None]:
        """Send the request of the current attempt."""
        self.server_state = self.state_wait_for_response_headers
        if (yield from self.make_server_connection()):
            yield from self._send_request()

    def _move_on(self, failure: Outcome, refusal: Held | None = None) -> Commands[Step]:
        """Let the failed attempt go and make the flow the next one's, if there is one.

        `refusal` is an answer that may tell what the same target would rather be sent.
        """
        exchange = self._ours
        if exchange is None or exchange.course is None:
            return "stays"
        following: Next | Reject | None = None
        if refusal is not None:
            status, said = refusal.response.status_code, refusal.body()
            following = exchange.course.mended(status, said, time.monotonic())
        if following is None and failure.status == 401 and exchange.course.key_command is not None:
            yield SignalboxRenewHook(self.flow)
            if (yield from self.check_killed(True)):
                return "over"
            following = exchange.course.renewed(exchange.renewed, time.monotonic())
        if following is None:
            following = exchange.course.failed(failure, time.monotonic())
        if following is None:
            return "stays"
        usage = self._held.reader.usage if self._held is not None else Usage()
        exchange.failed(failure, usage, time.monotonic())
        if self._is_last:
            self.deadlines.clear("hold")
        yield from self._let_go()
        if self._held is not None:
            self.flow.response = self._held.response
            said = self._held.body()
            hidden = exchange.rules.inspect.secrets == "mask"
            self.flow.response.data.content = exchange.told(said) if hidden else said
            self._held = None
        yield SignalboxAttemptHook(self.flow)
        if (yield from self.check_killed(True)):
            return "over"
        self.flow.response = self.flow.error = None
        if isinstance(following, Reject):
            yield from self._answer_here(following.status, following.message, failure)
            return "over"
        if following.wait:
            self._open_in_time()
            yield from self.pause(following.wait)
            if (yield from self.check_killed(True)):
                return "over"
        self._renewed = False
        exchange.take(following.attempt, time.monotonic())
        address(self.flow, exchange, following.attempt.outgoing)
        show(self.flow)
        return "moved"

    # answers

    def state_wait_for_response_headers(self, event: ResponseHeaders) -> Commands[None]:
        exchange = self._ours
        if exchange is None:
            yield from super().state_wait_for_response_headers(event)
            return
        self.deadlines.clear("first_byte")
        self.deadlines.set("idle", exchange.timeout.idle)
        status = event.response.status_code
        if wrong := fault(status, self.flow.request, may_switch=False):
            yield from self._failed(502, wrong, outcomes.no_answer(status).because(wrong))
            return
        if malformed := self._invalid(event.response):
            broken = ResponseProtocolError(self.stream_id, malformed, ErrorCode.GENERIC_SERVER_ERROR)
            yield from self.handle_protocol_error(broken)
            return
        assert exchange.provider is not None
        own_key = exchange.provider.auth != "client"
        if exchange.provider.is_anthropic:
            status = event.response.status_code
            is_read = status in MENDABLE or (status == 401 and own_key) or self._is_reshaped
        else:  # what is no stream may be an error, whatever its status
            is_read = not self._is_stream
        if exchange.course is None or not (is_read or self._may_wait):
            yield from self._accept(event)
            return
        host = exchange.provider.url.host
        self._held = Held(event, own_key=own_key, provider=host, secrets=exchange.secrets)
        self.server_state = self.state_hold
        if self._held.is_error:
            self.deadlines.set("judge", JUDGED_AFTER)
        elif self._held.is_stream or not self._is_last:
            self._open_in_time()

    def _invalid(self, response: http.Response) -> str:
        """What makes a head that could mean two things; mitmproxy would refuse it when it is delivered."""
        if self.context.options.validate_inbound_headers:
            try:
                validate_headers(response)
            except ValueError as error:
                return str(error)
        return ""

    def state_hold(self, event: Answered) -> Commands[None]:
        held, exchange = self._held, self._ours
        assert held is not None
        assert exchange is not None
        self.deadlines.set("idle", exchange.timeout.idle)
        told = held.feed(event, datetime.now(UTC))
        self._read_to_end = held.complete
        if told is None and held.is_stream and not self._may_wait:
            told = outcomes.success(held.response.status_code)
        if told is not None:
            yield from self._decide(told)

    def _decide(self, told: Outcome, *, is_cut: bool = False) -> Commands[None]:
        """Deliver what is held, or move on. `is_cut`: no more of its body comes, or is waited for."""
        held, exchange = self._held, self._ours
        assert held is not None
        assert exchange is not None
        self.deadlines.clear("judge")
        if self._opened and told.kind == "success" and not held.is_stream:
            told = outcomes.STREAM_ERROR.because("it answered without a stream")
        if told.kind != "success":
            self._told = read_error(exchange.told(held.error())) or self._told
            step = yield from self._move_on(told, held if held.response.status_code in MENDABLE else None)
            if step == "moved":
                yield from self._ask()
            if step != "stays":
                return
            if is_cut:
                yield from self._let_go()
                held.finish()
            reworded = self._reword(held, told)
            if reworded and not self._read_to_end:
                yield from self._let_go()
            is_anthropic = exchange.provider is not None and exchange.provider.is_anthropic
            if held.reader.foreign and not (is_anthropic or reworded or held.is_error):
                yield from self._give_up(502, f"gave no answer: {told.detail}", told)
                return
            if reworded or not is_anthropic:
                self._told = read_error(held.body()) or self._told
        self._held = None
        if self._opened and told.kind != "success":
            exchange.attempted(told.label)
            yield from self._end_opened(told)
            return
        yield from self._accept(held.head)
        for kept in held.events:
            yield from self.server_state(kept)

    def _reword(self, held: Held, told: Outcome) -> bool:
        """Say an error that is delivered as Anthropic would; says whether that changes anything."""
        exchange = self._ours
        assert exchange is not None
        assert exchange.provider is not None
        id, outgoing = exchange.request_id, exchange.outgoing
        translation = outgoing.translation if outgoing is not None else PASSING
        changed = held.translate(translation, told, id, datetime.now(UTC))
        changed = changed or held.refuses_key(exchange.provider.shown, id)
        if changed:
            exchange.outcome = told
        return (not exchange.provider.is_anthropic and held.reworded(id)) or changed

    def _accept(self, head: ResponseHeaders) -> Commands[None]:
        """Deliver this answer: from here on nothing is tried again."""
        exchange = self._ours
        assert exchange is not None
        self._delivering = True
        self.deadlines.clear("hold", "ping")
        if self._opened and exchange.outgoing is not None:  # the client was promised no coding
            exchange.outgoing = msgspec.structs.replace(exchange.outgoing, lone=False)
        yield from super().state_wait_for_response_headers(head)

    def state_stream_response_body(self, event: events.Event) -> Commands[None]:
        if (exchange := self._ours) is not None:
            self.deadlines.set("idle", exchange.timeout.idle)
        if isinstance(event, ResponseEndOfMessage):
            self.deadlines.clear_all()
        yield from super().state_stream_response_body(event)

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
        elif self._held is not None and self._held.is_error:
            yield from self._decide(self._held.judged(datetime.now(UTC)), is_cut=True)
        elif self._held is None and not self._renewed and self._was_stale():
            self._renewed = True  # a connection that was kept too long: no fault of the provider
            yield from self._let_go()
            yield from self._ask()
        else:
            failure = (outcomes.STREAM_ERROR if self._held else outcomes.CONNECT).because(
                in_words(event.message)
            )
            what = f"{self._where} broke off before it answered: {failure.detail}"
            yield from self._failed(502, what, failure)
