"""The stream of one request: from its body to the end of its answer.

`RoutedStream.run` is one generator, read from top to bottom. It asks for its next event by `next`, which
raises where the client has left or the time is up, so that an attempt is a function and the attempts are a
loop. Requests that are not routed (every path but the two messages paths) take mitmproxy's own way through
`HttpStream`.

Three things are done here because no hook can do them: the real credentials are put in when a request is
sent, so that they never stand in a flow; a refusal leaves before the request's body is in; what goes wrong
below the hooks becomes an answer in Anthropic's shape instead of an HTML page or a silent client.
"""

import logging
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from typing import TYPE_CHECKING, Literal

from mitmproxy import http
from mitmproxy.connection import Server
from mitmproxy.flow import Error
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import (
    DropStream,
    HttpConnectHook,
    HttpErrorHook,
    HttpLayer,
    HttpRequestHeadersHook,
    HttpRequestHook,
    HttpResponseHeadersHook,
    HttpResponseHook,
    HttpStream,
    RequestData,
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
from mitmproxy.proxy.layers.http._events import ErrorCode, HttpEvent

from signalbox.anthropic.api import Usage
from signalbox.anthropic.errors import error_event, error_type, read_error
from signalbox.config.fields import Proxy
from signalbox.errors import log_error, short_reason
from signalbox.exchange import Exchange
from signalbox.inspect.masking import shown_secrets
from signalbox.inspect.retention import StoredBody
from signalbox.proxy.dispatch import upstream
from signalbox.proxy.early_connection import is_incomplete
from signalbox.proxy.fields import QuickHeaders
from signalbox.proxy.headers import (
    HiddenHead,
    LeakError,
    handed_on,
    hide_in_head,
    is_large,
    mask_headers,
    mask_repeated,
    may_hold_thinking,
    not_an_answer,
    plain_headers,
    show,
    with_hidden,
    with_secrets,
)
from signalbox.proxy.hook_dispatch import (
    FlowHook,
    SignalboxAttemptHook,
    SignalboxLearnedHook,
    SignalboxRefreshHook,
    SignalboxRenewHook,
    begin,
)
from signalbox.proxy.local_responses import error, protocol_failure, stream_head, too_large
from signalbox.proxy.outbound import Via
from signalbox.proxy.pending_response import PendingResponse
from signalbox.proxy.reporting import log_received, report_failover
from signalbox.proxy.upstream import (
    AttemptFailed,
    ClientLeft,
    Commands,
    StaleConnection,
    TimedOut,
    UpstreamCall,
)
from signalbox.routing import outcome as outcomes
from signalbox.routing.attempts import Attempt, Reject
from signalbox.routing.credentials import masked_path
from signalbox.routing.outcome import Outcome
from signalbox.routing.work import Work, WorkRun, in_place, start

if TYPE_CHECKING:
    from signalbox.app import App

log = logging.getLogger("signalbox")

MAX_SILENCE = 10.0
"""Seconds for which a client hears nothing at most while another target could take over, and between two
pings after that (the contract, section 4). Claude Code gives up after 360 s without a status line, and never
while pings come (claude-code-observed.md)."""
ERROR_BODY_WAIT = 2.0
"""Seconds for which an error's body is waited for, to tell what it means."""
BUSY = 0.02
"""Seconds for which one stream may work before others are served."""
UNSENT = 1024 * 1024
"""Bytes for a client beyond which no more are made of what is there."""
SOON = 0.1
"""Seconds until it is looked at again whether the client has taken them."""
LINGER = 1.0
"""Seconds that a provider has to end an answer in which it has said all: then its connection is kept."""
USAGE_WAIT = 2.0
"""Seconds that it has to tell the usage of an answer that has ended."""
PING = b'event: ping\ndata: {"type": "ping"}\n\n'
TRAILERS = (RequestTrailers, ResponseTrailers)
KILLED = Error.KILLED_MESSAGE


@dataclass(eq=False)
class Receive(commands.Command):
    """The stream waits for its next event, or for `wakes_at`. Never leaves the stream."""

    blocking = True


@dataclass(repr=False)
class Received(events.CommandCompleted):
    command: Receive
    reply: events.Event


class SendNow(commands.Command):
    """What was said to be sent leaves now, and not together with what follows. Ends in the layer."""


@dataclass
class Tick(events.Event):
    """The moment that `wakes_at` named has come."""

    now: float


class RoutedStream(HttpStream):
    def __init__(self, context: Context, stream_id: int, app: "App") -> None:
        parent = context.layers[-1]
        assert isinstance(parent, HttpLayer)
        self.http_layer = parent
        """The layer of the client's connection."""
        super().__init__(context, stream_id)
        self.app = app
        self._exchange: Exchange | None = None
        self.wakes_at = inf
        """When the layer is to send a `Tick`, on the monotonic clock."""
        self._routine: Commands[None] | None = None
        """`run`, once it has begun: it takes all events, one by one, by `next`."""
        self._is_working = False
        """Whether `run` is doing something now, and not waiting."""
        self._awaited: commands.Command | None = None
        """The command whose reply `run` is waiting for."""
        self._linear = False
        """Whether a request that is not routed takes its events by `next`."""
        self._receiving: Receive | None = None
        self._since = 0.0
        """When this stream's turn began."""
        self._call = UpstreamCall(self)
        self._answer: PendingResponse | None = None
        """Of the attempt under way, as far as it has come."""
        self._sent: Literal["nothing", "early head", "answer"] = "nothing"
        """What was sent to the client."""
        self._hidden = HiddenHead({})
        """What the flow shows masked: put back when the head is sent."""
        self._stored: StoredBody | None = None
        """Of the answer that is delivered, for views and files."""
        self._ping_at = inf
        """When the client must hear something."""
        self._last_error = ("api_error", "No provider answered.")
        """Type and message of the last failure, for a client that has its status already."""

    @property
    def exchange(self) -> Exchange:
        assert self._exchange is not None
        return self._exchange

    @property
    def proxy(self) -> Proxy | None:
        """Through which the flow's request is sent."""
        exchange = self._exchange
        if exchange is not None and exchange.provider is not None:
            return exchange.provider.proxy
        return upstream(self.flow, exchange.rules if exchange is not None else self.app.rules).proxy

    @property
    def _is_ours(self) -> bool:
        """Whether this is a request to one of the two messages paths that the router answers for."""
        return self._exchange is not None and self._exchange.is_messages_request

    # events

    # mitmproxy types it as a generator; its callers, and ours, only go through what it gives
    def handle_event(self, event: events.Event) -> Iterable[commands.Command]:  # type: ignore[override]
        if self._routine is not None:
            return self._go_on(event)
        if self._awaits_body and isinstance(event, HttpEvent) and self._paused is None:
            self._routine = self._surely(self.run(event))
            return self._go_on(None)
        return self._handle_in_states(event)

    def _handle_event(self, event: events.Event) -> Commands[None]:
        """mitmproxy's way, until `run` begins, and of a request that is not routed."""
        if self._routine is not None:
            yield from self._go_on(event)
        elif isinstance(event, events.Start | HttpEvent) and not isinstance(event, TRAILERS):
            yield from self._surely(self._guarded(super()._handle_event(event)))
        # else it is a late tick or reply; an HTTP/1 connection cannot send trailers

    @property
    def _awaits_body(self) -> bool:
        return self.client_state == self.state_consume_request_body and self._is_ours

    def _go_on(self, event: events.Event | None) -> Commands[None]:
        """Let `run` have this event, or keep it until `run` asks for one."""
        routine, reply = self._routine, event
        assert routine is not None
        if (awaited := self._awaited) is not None and not self._is_working:
            if not isinstance(event, events.CommandCompleted) or event.command is not awaited:
                self._paused_event_queue.append(event)  # type: ignore[arg-type]  # None only begins
                return
            self._awaited, reply = None, event.reply
        elif self._is_working:  # it came of what `run` is just sending
            self._paused_event_queue.append(event)  # type: ignore[arg-type]  # likewise
            return
        self._is_working = True
        try:
            while True:
                command = routine.send(reply)
                reply = None
                if type(command) is Receive:
                    return
                if command.blocking is True:
                    command.blocking, self._awaited = self, command
                    self._is_working = False
                    yield command
                    return
                yield command
        except StopIteration:
            self._routine = None
            self._paused_event_queue.clear()
        finally:
            self._is_working = False

    def _handle_in_states(self, event: events.Event) -> Commands[None]:
        """As mitmproxy's layers do, but that `next` may be used."""
        if (waiting := self._receiving) is not None:
            self._receiving = None
            event = Received(waiting, event)
        elif self._linear and self._paused is None:  # it came of what is just being sent
            self._paused_event_queue.append(event)
            return
        for command in super().handle_event(event):
            if isinstance(command, Receive):
                self._receiving = command
            else:
                yield command

    def _surely(self, inner: Commands[None]) -> Commands[None]:
        """The same, ending in an answer for the client where it fails."""
        try:
            yield from inner
        except LeakError as leak:
            log.error("request not sent: %s", leak)
            yield from self._fail_internally(500, str(leak))
        except Exception as error:
            log_error("the proxy", error)
            yield from self._fail_internally(500, "The router failed; its log says where.")

    def next(self, until: float = inf) -> Commands[events.Event]:
        """The next event. Meanwhile a client that has waited long gets a head and pings. Raises TimedOut at
        `until` (seconds of the monotonic clock), ClientLeft."""
        while True:
            event: events.Event
            if self._paused_event_queue:
                event = self._paused_event_queue.popleft()
            else:
                self.wakes_at = min(until, self._ping_at)
                event = yield Receive()
                self.wakes_at = inf
                self._since = time.monotonic()
            if isinstance(event, RequestProtocolError):
                raise ClientLeft(event.message)
            if self.flow.error is not None and self.flow.error.msg == KILLED:
                raise ClientLeft(KILLED)
            if isinstance(event, ResponseHeaders):
                return self._heard(event)
            if isinstance(event, ResponseProtocolError):
                event.message = self.exchange.redact_text(event.message)  # which may quote what came
            if not isinstance(event, Tick):
                return event
            if event.now >= self._ping_at:
                yield from self._keep_alive()
            if event.now >= until:
                raise TimedOut

    def _heard(self, event: ResponseHeaders) -> ResponseHeaders:
        """The head of an answer as it is handed on, once the exchange has heard of it."""
        exchange = self._exchange
        if exchange is not None and event.response.status_code >= 200:
            mask_repeated(event.response, exchange)
            headers = plain_headers(event.response)
            exchange.on_response_head(event.response.status_code, headers, time.monotonic())
            self.app.stores.observe_head(exchange, event.response.status_code, headers)
        head = handed_on(event.response, self.flow.request)
        if exchange is not None and exchange.rules.inspect.secrets == "mask":
            self._hidden = hide_in_head(head, shown_secrets(exchange) if exchange.is_shown else ())
        return ResponseHeaders(event.stream_id, head, event.end_stream)

    def _let_others_go(self) -> Commands[None]:
        """Let other streams run, and wait until the client has taken what it was sent. A few compressed bytes
        may decode to hundreds of megabytes. Meanwhile the upstream is not read. Raises ClientLeft."""
        if time.monotonic() - self._since < BUSY:
            return
        early, due = deque[events.Event](), 0.0
        self._call.hold()
        try:
            while True:
                try:
                    early.append((yield from self.next(until=due)))
                except TimedOut:
                    if self._call.unsent_to_client() <= UNSENT:
                        return
                    due = time.monotonic() + SOON
        finally:
            self.put_back(early)
            self._call.go_on()

    def put_back(self, early: Iterable[events.Event]) -> None:
        """Events that came too early for the wait under way."""
        self._paused_event_queue.extendleft(reversed(list(early)))

    def drop_queued(self, kinds: tuple[type[events.Event], ...]) -> None:
        kept = (event for event in self._paused_event_queue if not isinstance(event, kinds))
        self._paused_event_queue = deque(kept)

    def hook(self, kind: FlowHook) -> Commands[None]:
        """Run a hook in place, and wait for what is left of it. Raises ClientLeft."""
        if (rest := begin(self.app.master.addons, kind, self.flow)) is not None:
            yield rest
        self._raise_if_gone()

    def _raise_if_gone(self) -> None:
        """After a wait of mitmproxy's: whether the client has left meanwhile, or the flow was killed."""
        left = next((e for e in self._paused_event_queue if isinstance(e, RequestProtocolError)), None)
        if left is not None:
            raise ClientLeft(left.message)
        if self.flow.error is not None and self.flow.error.msg == KILLED:
            raise ClientLeft(KILLED)

    # the request

    def state_wait_for_request_headers(self, event: RequestHeaders) -> Commands[None]:
        """mitmproxy's, with the hook in place, and a refusal that leaves before the body is in."""
        if (host := event.request.host_header) is not None:
            self.app.client_hosts[event.request] = host
        inner, reply = super().state_wait_for_request_headers(event), None
        while True:
            try:
                command = inner.send(reply)
            except StopIteration:
                return
            reply = None
            if not isinstance(command, HttpRequestHeadersHook):
                reply = yield command
            elif (rest := begin(self.app.master.addons, HttpRequestHeadersHook, self.flow)) is not None:
                yield rest
            if isinstance(command, HttpConnectHook):  # no flow of a CONNECT goes further than this
                mask_headers(self.flow.request.headers)
            if isinstance(command, HttpRequestHeadersHook):
                self._exchange = self.app.exchanges.get(self.flow)
                if self._is_refused:
                    inner.close()
                    yield from self._refuse()
                    return

    def state_consume_request_body(self, event: events.Event) -> Commands[None]:
        if self._is_ours:  # and a hook has kept this event waiting
            self._routine = self._surely(self.run(event))
            yield from self._go_on(None)
        else:
            yield from super().state_consume_request_body(event)

    def check_body_size(self, request: bool) -> Commands[bool]:
        """Of ours the size is checked as the body comes in."""
        return False if self._is_ours else (yield from super().check_body_size(request))

    def run(self, event: events.Event) -> Commands[None]:
        """From the request's body to the end of its answer. `event` is the first after the head."""
        try:
            yield from self._receive_body(event)
            if self._is_refused:
                yield from self._refuse()
                return
            knows_issuers = self.app.stores.provenance.is_current or not may_hold_thinking(self.flow.request)
            rules = self.exchange.rules
            if rules.login_folders or rules.codex_folders or not knows_issuers:
                yield from self.hook(SignalboxRefreshHook)
            yield from self.hook(HttpRequestHook)
            if self.flow.response is not None:
                yield from self._respond(self.flow.response)
            else:
                yield from self._attempt_until_answered()
        except ClientLeft as left:
            yield from self._client_left(str(left))

    def _receive_body(self, event: events.Event) -> Commands[None]:
        exchange, request, is_opening = self.exchange, self.flow.request, False
        while not isinstance(event, RequestEndOfMessage):
            if isinstance(event, RequestData):
                self.request_body_buf += event.data
                received = len(self.request_body_buf)
                if received > exchange.rules.body_limit:
                    exchange.refuse()
                    self.flow.response = too_large(exchange)
                    return
                if not is_opening and is_incomplete(request, received):
                    is_opening = True
                    yield from self._call.open_early()
            event = yield from self.next()
        request.timestamp_end = time.time()
        request.data.content = bytes(self.request_body_buf)
        request.trailers = None
        self.request_body_buf.clear()
        self.client_state = self.state_done

    # attempts

    def _attempt_until_answered(self) -> Commands[None]:
        while True:
            try:
                answer = yield from self._ask()
            except AttemptFailed as failed:
                following = yield from self._following(failed)
                if following is None:
                    yield from self._fail(failed)
                    return
                yield from self._abandon(failed, following)
                if isinstance(following, Reject):
                    yield from self._respond_error(following.status, following.message, failed.outcome)
                    return
                yield from self._start(following)
                continue
            yield from self._deliver(answer)
            return

    def _following(self, failed: AttemptFailed) -> Commands[Attempt | Reject | None]:
        """What to do after a failure. None: nothing takes over, the client gets this failure."""
        dispatch, now, answer = self.exchange.dispatch, time.monotonic(), failed.answer
        if dispatch is None:
            return None
        if answer is not None and (refusal := answer.refusal(failed.outcome)) is not None:
            repaired = yield from self._decide(dispatch.repaired(*refusal, now))
            if repaired is not None:
                return repaired
        if dispatch.may_renew_key(failed.outcome):
            yield SignalboxRenewHook(self.flow)
            self._raise_if_gone()
            renewed = yield from self._decide(dispatch.renewed(time.monotonic()))
            if renewed is not None:
                return renewed
        return (yield from self._decide(dispatch.after(failed.outcome, time.monotonic())))

    def _decide[T](self, work: Work[T]) -> Commands[T]:
        """Make a decision; in a thread where the body is large. Raises what it raises, and
        ClientLeft."""
        if not is_large(self.flow.request):
            return in_place(work)
        steps, early = WorkRun(work), deque[events.Event]()
        try:
            while steps.job is not None:
                running = start(steps.job)
                while not running.done():
                    try:
                        early.append((yield from self.next(until=time.monotonic() + BUSY)))
                    except TimedOut:
                        continue
                if isinstance(error := running.exception(), Exception):
                    steps.raised(error)
                else:
                    steps.returned(running.result())
        finally:
            self.put_back(early)
        return steps.result

    def _abandon(self, failed: AttemptFailed, following: Attempt | Reject) -> Commands[None]:
        """Release the upstream and book the failure; where flows are looked at it becomes one of its own."""
        exchange, answer = self.exchange, failed.answer or self._answer
        usage = answer.facts.usage if answer is not None else Usage()
        exchange.fail_attempt(failed.outcome, usage, time.monotonic())
        yield from self._call.release()
        if answer is not None:
            self.flow.response = answer.response
            self.app.retention.show_failed(self.flow, exchange, answer.decoded())
        self._answer = None
        report_failover(self.app, self.flow, exchange, failed.outcome, following)
        # Not in place: mitmproxy's HTTP client is done with an answer only after it has told its end.
        yield SignalboxAttemptHook(self.flow)
        self._raise_if_gone()
        self.flow.response = self.flow.error = None

    def _start(self, attempt: Attempt) -> Commands[None]:
        """Wait as long as the attempt is to wait, and make the flow its request."""
        if attempt.delay:
            self._break_silence_in_time()
            due = time.monotonic() + attempt.delay
            while True:
                try:
                    yield from self.next(until=due)
                except TimedOut:
                    break
        dispatch = self.exchange.dispatch
        assert dispatch is not None
        dispatch.start(attempt, self.flow, time.monotonic())
        yield from self._decide(self.app.retention.show_attempt(self.flow, self.exchange))
        show(self.app.master, self.flow)

    def _ask(self) -> Commands[PendingResponse]:
        """One attempt, until its answer has begun. Raises AttemptFailed."""
        try:
            return (yield from self._ask_once())
        except StaleConnection:
            yield from self._call.release()
            return (yield from self._ask_once(again=True))

    def _ask_once(self, *, again: bool = False) -> Commands[PendingResponse]:
        exchange = self.exchange
        self._call = call = UpstreamCall(self)
        self._answer = exchange.answer = None
        self._watch_silence()
        yield from call.connect(exchange.timeout.connect)
        if not call.is_reused:  # that took its time
            self._watch_silence()
        first_byte = time.monotonic() + exchange.first_byte_limit
        yield from call.send(with_secrets(self.flow.request, exchange))
        response = yield from call.receive_head(first_byte, again=again)
        outgoing = exchange.outgoing
        self._answer = answer = PendingResponse(
            response,
            exchange,
            key=exchange.provenance_key,
            decode=outgoing is not None and (outgoing.decodes or self._sent != "nothing"),
        )
        exchange.answer = answer.facts
        if self._is_read_first(answer):
            yield from self._read_until_begun(answer)
        return answer

    def _is_read_first(self, answer: PendingResponse) -> bool:
        """Whether the answer is kept from the client until it has begun, or shows what it is."""
        if self.exchange.dispatch is None:
            return False
        if self._may_wait:
            return True
        return answer.may_change

    def _read_until_begun(self, answer: PendingResponse) -> Commands[None]:
        """Raises AttemptFailed where it turns out to be no answer."""
        judged_at = time.monotonic() + ERROR_BODY_WAIT if answer.is_error else inf
        if not answer.is_error and (answer.is_stream or not self._is_last):
            self._break_silence_in_time()
        over_at = inf
        while (outcome := self._outcome(answer)) is None:
            idle = self.exchange.timeout.idle
            try:
                event = yield from self.next(min(judged_at, over_at, time.monotonic() + idle))
            except TimedOut:
                if time.monotonic() >= over_at:
                    yield from self._call.release()
                    self._take_end(answer)
                    continue
                if answer.is_error:
                    raise AttemptFailed(
                        answer.classify(datetime.now(UTC)), answer=answer, is_cut=True
                    ) from None
                what = f"was silent for {idle:g} s"
                raise AttemptFailed(outcomes.TIMEOUT.because(what), 504, what) from None
            if isinstance(event, ResponseProtocolError):
                if answer.reader.finished:
                    self._take_end(answer)
                elif answer.is_error:
                    raise AttemptFailed(answer.classify(datetime.now(UTC)), answer=answer, is_cut=True)
                else:
                    raise self._call.broke_off(event.message, outcomes.STREAM_ERROR)
            elif isinstance(event, ResponseData):
                yield from self._take(answer, event.data)
                over_at = self._over_at(answer, over_at)
            elif isinstance(event, ResponseEndOfMessage):
                self._call.read_to_end = True
                self._take_end(answer)
        if self._sent == "early head" and outcome.kind == "success" and not answer.is_stream:
            outcome = outcomes.STREAM_ERROR.because("it answered without a stream")
        if outcome.kind != "success":
            self._last_error = (
                read_error(self.exchange.redact(answer.reported_error())).type_and_message or self._last_error
            )
            raise AttemptFailed(outcome, answer=answer)

    def _outcome(self, answer: PendingResponse) -> Outcome | None:
        outcome = answer.outcome(datetime.now(UTC))
        if answer.facts.cut and not (answer.facts.began or answer.facts.error):
            why = f"gave no whole answer: {answer.facts.cut}"
            raise AttemptFailed(outcomes.STREAM_ERROR.because(answer.facts.cut), 502, why)
        is_held = self._may_wait or answer.may_be_refusal
        if outcome is None and answer.is_stream and answer.buffered and not is_held:
            return outcomes.success(answer.response.status_code)
        return outcome

    def _take(self, answer: PendingResponse, data: bytes) -> Commands[None]:
        """Keep what the client would get of this; no more of it is made than shows what it is."""
        answer.rest = answer.pieces(data)
        for piece in answer.rest:
            if piece:
                answer.buffered.append(piece)
            if self._outcome(answer) is not None:
                return
            yield from self._let_others_go()

    def _take_end(self, answer: PendingResponse) -> None:
        if data := answer.end():
            answer.buffered.append(data)

    @property
    def _is_last(self) -> bool:
        """Whether no other target could take over: what this one says is the client's at once."""
        dispatch, outgoing = self.exchange.dispatch, self.exchange.outgoing
        if dispatch is None or (outgoing is not None and outgoing.is_only_candidate):
            return True
        return not dispatch.could_follow(time.monotonic())

    @property
    def _may_wait(self) -> bool:
        """Whether an answer is held until it begins: another may take over, or the client gets pings."""
        return self._sent == "early head" or not self._is_last

    # the answer

    def _deliver(self, answer: PendingResponse) -> Commands[None]:
        """Give the client this answer. From here on nothing is tried again."""
        exchange, flow, call, client = self.exchange, self.flow, self._call, self.context.client
        has_head = self._sent == "early head"
        self._ping_at = inf
        flow.response = response = answer.response
        response.stream = True
        provider, status = answer.provider, response.status_code
        exchange.label_attempt(str(status) if exchange.outcome is None else exchange.outcome.label)
        if not provider.is_anthropic:
            answer.drop_private_headers()
        log_received(exchange, provider, status)
        yield from self.hook(HttpResponseHeadersHook)
        if not has_head:
            answer.frame(flow.request.http_version)
            head = with_hidden(response, self._hidden)
            yield SendHttp(ResponseHeaders(self.stream_id, head, False), client)
        self._sent = "answer"
        self._stored = self.app.retention.store(flow, exchange)
        self._ping_when_silent(answer)
        for data in answer.buffered:
            yield from self._pass(answer, data)
        answer.buffered.clear()
        yield from self._pass_all(answer)
        over_at = self._over_at(answer, inf)
        while not answer.complete:
            if answer.facts.cut:
                break
            idle = exchange.timeout.idle
            try:
                event = yield from self.next(min(over_at, time.monotonic() + idle))
            except TimedOut:
                if time.monotonic() >= over_at:
                    yield from call.release()
                    event = ResponseEndOfMessage(self.stream_id)
                elif self._call.unsent_to_client():
                    continue  # it is the client that does not read
                else:
                    what = f"was silent for {idle:g} s"
                    yield from self._cut(outcomes.TIMEOUT.because(what), what)
                    return
            if isinstance(event, ResponseProtocolError):
                if not answer.reader.finished:
                    yield from self._cut(
                        outcomes.STREAM_ERROR.because(short_reason(event.message)), event.message
                    )
                    return
                event = ResponseEndOfMessage(self.stream_id)
            if isinstance(event, ResponseData):
                answer.rest = answer.pieces(event.data)
                yield from self._pass_all(answer)
                over_at = self._over_at(answer, over_at)
            elif isinstance(event, ResponseEndOfMessage):
                call.read_to_end = True
                yield from self._pass(answer, answer.end())
        if answer.facts.cut:
            what = f"gave no whole answer: {answer.facts.cut}"
            yield from self._cut(outcomes.STREAM_ERROR.because(answer.facts.cut), what)
        else:
            yield from self._end(answer)

    def _pass_all(self, answer: PendingResponse) -> Commands[None]:
        for data in answer.rest:
            yield from self._pass(answer, data)
            yield from self._let_others_go()

    def _pass(self, answer: PendingResponse, data: bytes) -> Commands[None]:
        """Bytes for the client. Whose thinking they hold is known, also to other routers with this state
        folder, before its next request may come."""
        exchange = self.exchange
        has_just_begun = exchange.on_answer_bytes(answer.facts, time.monotonic())
        if has_just_begun and exchange.dispatch is not None:
            exchange.dispatch.answer_began(answer.facts.message_id)
        if data:
            if not exchange.is_provenance_written:
                yield from self.hook(SignalboxLearnedHook)
            if self._stored is not None:
                self._stored.add(data)
            yield SendHttp(ResponseData(self.stream_id, data), self.context.client)
            self._ping_when_silent(answer)

    def _ping_when_silent(self, answer: PendingResponse) -> None:
        """Chat completions know no pings, and a model may think for long without a word."""
        if answer.reader.content_type is not None and self.exchange.wants_stream:
            self._ping_at = inf if answer.reader.over else time.monotonic() + self.app.max_silence

    def _over_at(self, answer: PendingResponse, over_at: float) -> float:
        """When an answer counts as over although its connection stays open."""
        if not answer.reader.finished:
            return inf
        return min(over_at, time.monotonic() + (LINGER if answer.reader.over else USAGE_WAIT))

    def _end(self, answer: PendingResponse) -> Commands[None]:
        """Sends the end to the client first, then records: recording does not delay the answer."""
        self._ping_at = inf
        exchange, response = self.exchange, answer.response
        if exchange.outcome is None:
            exchange.conclude(answer.final(datetime.now(UTC)))
        self._close_stored()
        response.timestamp_end = time.time()
        self.client_state = self.server_state = self.state_errored
        yield DropStream(self.stream_id)
        if answer.facts.broken:
            cut = ResponseProtocolError(self.stream_id, "broken answer", ErrorCode.KILL)
            yield SendHttp(cut, self.context.client)
        else:
            yield SendHttp(ResponseEndOfMessage(self.stream_id), self.context.client)
        yield SendNow()
        if (rest := begin(self.app.master.addons, HttpResponseHook, self.flow)) is not None:
            yield rest
        self.flow.live = False

    # a client that waits

    def _watch_silence(self) -> None:
        if self._sent == "early head":
            return
        if self._is_last:
            self._ping_at = inf
        else:
            self._break_silence_in_time()

    def _break_silence_in_time(self) -> None:
        """From now on a client that wants a stream waits without a word for so long and no longer."""
        if self.exchange.wants_stream and self._ping_at == inf:
            self._ping_at = time.monotonic() + self.app.max_silence

    def _keep_alive(self) -> Commands[None]:
        """A ping; before the first one the head of a stream. Failover stays possible."""
        client = self.context.client
        if self._sent == "nothing":
            exchange = self.exchange
            exchange.give_early_head(self._answer.response.status_code if self._answer is not None else None)
            head = stream_head(exchange.headers(), chunked=self.flow.request.http_version == "HTTP/1.1")
            if exchange.close_after_response:
                head.headers["connection"] = "close"
            yield SendHttp(ResponseHeaders(self.stream_id, head, False), client)
            self._sent = "early head"
        yield SendHttp(ResponseData(self.stream_id, PING), client)
        self._ping_at = time.monotonic() + self.app.max_silence

    # failing

    def _fail(self, failed: AttemptFailed) -> Commands[None]:
        """No other target takes over: the client gets the provider's own error, or one of the router's."""
        exchange, answer, now = self.exchange, failed.answer, datetime.now(UTC)
        provider = exchange.provider
        assert provider is not None
        if answer is None:
            exchange.answer_locally()
            exchange.label_attempt(failed.outcome.label)
            yield from self._call.release()
            yield from self._respond_error(
                failed.status, exchange.failure_of_all(failed.message, time.monotonic()), failed.outcome
            )
            return
        if failed.is_cut or (answer.is_error and answer.facts.broken):
            answer.cut_short()
        is_changed = answer.translate_error(failed.outcome, now)
        if is_changed := answer.refuse_key() or is_changed:
            exchange.conclude(failed.outcome)
        is_changed = (not provider.is_anthropic and answer.normalize_context_error()) or is_changed
        exchange.answer = answer.facts
        if answer.facts.foreign and not (provider.is_anthropic or is_changed or answer.is_error):
            exchange.answer_locally()
            exchange.label_attempt(failed.outcome.label)
            yield from self._call.release()
            message = exchange.failure_of_all(f"gave no answer: {failed.outcome.detail}", time.monotonic())
            yield from self._respond_error(502, message, failed.outcome)
            return
        if is_changed or not provider.is_anthropic:
            self._last_error = read_error(answer.body()).type_and_message or self._last_error
        if answer.complete and not self._call.read_to_end:
            yield from self._call.release()
        if self._sent == "early head":
            exchange.answer_locally()
            exchange.label_attempt(failed.outcome.label)
            yield from self._end_with_event(failed.outcome)
        else:
            yield from self._deliver(answer)

    def _respond_error(self, status: int, message: str, failure: Outcome) -> Commands[None]:
        """An error of the router's own, as far as a status can still be told."""
        exchange = self.exchange
        if self._sent == "early head":
            self._last_error = (error_type(status), message)
            yield from self._end_with_event(failure)
            return
        self.flow.response = error(status, message, exchange)
        yield from self._send(self.flow.response)
        yield from self._over(failure, message)

    def _end_with_event(self, failure: Outcome) -> Commands[None]:
        """All have failed, and the client has had status 200 already."""
        yield from self._call.release()
        said = error_event(*self._last_error, self.exchange.request_id)
        yield SendHttp(ResponseData(self.stream_id, said), self.context.client)
        yield SendHttp(ResponseEndOfMessage(self.stream_id), self.context.client)
        yield from self._over(failure, self._last_error[1])

    def _cut(self, failure: Outcome, what: str) -> Commands[None]:
        """An answer that has begun ends too early: it is cut for the client too."""
        exchange = self.exchange
        exchange.label_attempt(failure.label)
        yield from self._call.release()
        name = exchange.provider.shown if exchange.provider is not None else "the provider"
        cut = ResponseProtocolError(self.stream_id, f"{name} {what}", ErrorCode.GENERIC_SERVER_ERROR)
        yield SendHttp(cut, self.context.client)
        yield from self._over(failure, f"{name} {what}")

    def _over(self, failure: Outcome, message: str) -> Commands[None]:
        self.exchange.break_off(failure)
        self.flow.error = Error(message)
        yield from self._drop()

    def _client_left(self, message: str) -> Commands[None]:
        """No provider's failure: the upstream is released at once."""
        self.exchange.cancel()
        yield from self._call.release()
        if message == KILLED:
            killed = ResponseProtocolError(self.stream_id, "killed", ErrorCode.KILL)
            yield SendHttp(killed, self.context.client)
        self.flow.error = Error(message)
        yield from self._drop()

    def _drop(self) -> Commands[None]:
        self._ping_at = inf
        self._close_stored()
        self.client_state = self.server_state = self.state_errored
        self.flow.live = False
        yield HttpErrorHook(self.flow)
        yield DropStream(self.stream_id)

    def _close_stored(self) -> None:
        if self._stored is not None:
            self._stored.close()
            self._stored = None

    # answers of the router's own

    @property
    def _is_refused(self) -> bool:
        exchange = self._exchange
        return exchange is not None and exchange.kind == "refused"

    def _refuse(self) -> Commands[None]:
        """Answer now. What is still coming of the request is read and thrown away, so that the client,
        which may read only after it has written, gets to see the answer."""
        assert self.flow.response is not None
        self.request_body_buf.clear()
        self.flow.response.headers["connection"] = "close"
        yield HttpResponseHook(self.flow)
        yield from self._send(self.flow.response)
        self.client_state = self.server_state = self.state_errored
        self.flow.live = False
        yield DropStream(self.stream_id)

    def _respond(self, response: http.Response) -> Commands[None]:
        """An answer that a hook has set."""
        response.timestamp_start = time.time()
        yield from self.hook(HttpResponseHeadersHook)
        response.timestamp_end = time.time()
        yield from self.hook(HttpResponseHook)
        self.client_state = self.state_done
        yield from self._send(response)
        self.client_state = self.server_state = self.state_errored
        self.flow.live = False
        yield DropStream(self.stream_id)

    def _send(self, response: http.Response) -> Commands[None]:
        content = b"" if self.flow.request.method == "HEAD" else response.raw_content
        client = self.context.client
        exchange = self._exchange
        if self.client_state != self.state_done or (exchange is not None and exchange.close_after_response):
            response.headers["connection"] = "close"
        head = with_hidden(response, self._hidden)
        yield SendHttp(ResponseHeaders(self.stream_id, head, not content), client)
        self._sent = "answer"
        if content:
            yield SendHttp(ResponseData(self.stream_id, content), client)
        yield SendHttp(ResponseEndOfMessage(self.stream_id), client)

    # requests that are not routed

    def _guarded(self, inner: Commands[None]) -> Commands[None]:
        """mitmproxy's own way: put in the credentials, and say its errors in Anthropic's shape."""
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
                    event.request = with_secrets(event.request, self._exchange)
                elif isinstance(event, ResponseHeaders):
                    event.response = with_hidden(event.response, self._hidden)
                    if event.response.status_code >= 200:
                        self._sent = "answer"
                elif isinstance(event, ResponseProtocolError) and self._can_answer(event):
                    yield from self._send(protocol_failure(event, self.flow, self._exchange))
                    continue
            reply = yield command

    def make_server_connection(self) -> Commands[bool]:
        """Of a request that is not routed: with a limit on the time for it."""
        exchange = self._exchange
        if exchange is None:
            if (proxy := self.proxy) is not None:
                self.flow.server_conn = Server(address=self.flow.server_conn.address, via=Via(proxy))
            return (yield from super().make_server_connection())
        self._linear = True
        try:
            yield from self._call.connect(exchange.timeout.connect)
        except AttemptFailed as failed:
            self._linear = False
            message = failed.outcome.detail
            broken = ResponseProtocolError(self.stream_id, message, ErrorCode.CONNECT_FAILED)
            yield from self.handle_protocol_error(broken)
            return False
        except ClientLeft as left:
            self._linear = False
            gone = RequestProtocolError(self.stream_id, str(left), ErrorCode.CLIENT_DISCONNECTED)
            yield from self.handle_protocol_error(gone)
            return False
        finally:
            self._linear = False
        return True

    def state_wait_for_response_headers(self, event: ResponseHeaders) -> Commands[None]:
        event = self._heard(event)
        if wrong := not_an_answer(event.response.status_code, self.flow.request, may_switch=True):
            yield commands.CloseConnection(self.context.server)
            broken = ResponseProtocolError(self.stream_id, wrong, ErrorCode.GENERIC_SERVER_ERROR)
            yield from self.handle_protocol_error(broken)
            return
        yield from super().state_wait_for_response_headers(event)

    def check_invalid(self, request: bool) -> Commands[bool]:
        """What mitmproxy refuses meets no hook of the router's, but is shown and saved."""
        if request:
            asked = self.flow.request
            is_sound = isinstance(asked.headers, QuickHeaders) and asked.headers.is_sound
            validates = self.context.options.validate_inbound_headers and not is_sound
            if not validate_request(self.mode, asked, validates):
                return False
            mask_headers(asked.headers)
            asked.path = masked_path(asked.path)
        return (yield from super().check_invalid(request))

    def handle_protocol_error(self, event: RequestProtocolError | ResponseProtocolError) -> Commands[None]:
        exchange = self._exchange
        if exchange is not None:
            event.message = exchange.redact_text(event.message)  # it may quote what came
        if exchange is not None and isinstance(event, RequestProtocolError):
            exchange.cancel()
        elif exchange is not None and exchange.ending != "cancelled":
            exchange.label_attempt("stream_error")
            if exchange.is_messages_request:
                exchange.fail()
            else:
                exchange.break_off(outcomes.CONNECT.because(short_reason(event.message)))
            if self._can_answer(event):
                self.flow.response = protocol_failure(event, self.flow, self._exchange)
        yield from super().handle_protocol_error(event)

    def _can_answer(self, event: RequestProtocolError | ResponseProtocolError) -> bool:
        return (
            self._sent == "nothing"
            and self._exchange is not None
            and event.code.http_status_code() is not None
            and event.code is not ErrorCode.KILL
        )

    def _fail_internally(self, status: int, message: str) -> Commands[None]:
        """The stream cannot go on: tell the client, or cut it where it already has part of an answer."""
        self._linear = False
        self._ping_at = inf
        exchange = self._exchange
        if exchange is not None:
            exchange.fail()
        yield from self._call.release()
        if self._sent == "nothing" and hasattr(self, "flow"):
            self.flow.response = error(status, message, exchange, {"connection": "close"})
            yield from self._send(self.flow.response)
        else:
            cut = ResponseProtocolError(self.stream_id, message, ErrorCode.KILL)
            yield SendHttp(cut, self.context.client)
        if hasattr(self, "flow"):
            self.flow.error = Error(message)
            yield from self._drop()
        else:
            yield DropStream(self.stream_id)
