"""The hooks, and what lives as long as the process.

mitmproxy may load `router.py` again at any time; what flows in flight, rules and sessions know must not
depend on that file, so it is all held here.
"""

import logging
import os
import time
from collections.abc import Awaitable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from mitmproxy import http
from mitmproxy.connection import Client

from signalbox.config.rules import Level, Provider, Rules
from signalbox.config.watch import Live
from signalbox.exchange import Exchange
from signalbox.gateway import arrival
from signalbox.gateway.listing import Listing
from signalbox.gateway.metering import Metering
from signalbox.messages.paths import MESSAGES
from signalbox.pages import health
from signalbox.proxy import answers, dispatch, recording, replays
from signalbox.proxy.faults import place
from signalbox.proxy.flows import exchanges
from signalbox.proxy.requests import takes_long
from signalbox.record import console
from signalbox.record.console import LEVELS, request_line
from signalbox.record.recorder import Recorder
from signalbox.routing.credentials import Caller, Headers, identify, less_clients
from signalbox.routing.health import ProviderHealth
from signalbox.routing.sessions import Sessions
from signalbox.routing.work import Work, in_place, in_thread
from signalbox.state.provenance import ProvenanceStore
from signalbox.state.unsupported_store import UnsupportedStore

log = logging.getLogger("signalbox")

WALL = "Only this machine may connect while rules.yaml has no clients."
PAGE = "Web pages may not use this router"
FAULT = "The router failed; its log says where."


class Gateway:
    """The state of one router: rules in force, sessions, what each provider last said, the recorder."""

    def __init__(self, rules: Path, state: Path) -> None:
        self.live = Live(rules, os.environ, log=_say)
        self.sessions = Sessions()
        self.provider_health = ProviderHealth()
        self.counting = ProviderHealth(metered=False)
        """The same for count_tokens, which has limits of its own and says nothing of messages."""
        self.observed = health.Observed()
        self.unwalled = False
        """Whether the user lets any machine in, with `block_private=false`."""
        self.closing = False
        """Whether mitmproxy is ending: what fails from now on is nobody's failure (mitmproxy.md, 7)."""
        self.recorder = Recorder(state)
        self._state = state
        self.metering = Metering(state, lambda: self.rules, self.recorder.ledger.used)
        self.listing = Listing(state, self.live, self.metering)
        self.issued: ProvenanceStore
        self.learned: UnsupportedStore

    def start(self) -> None:
        """Load the rules for the first time. Raises RulesError."""
        self.live.on_change += [
            self.recorder.follow,
            lambda rules: self.provider_health.forget(rules.providers),
            lambda rules: self.counting.forget(rules.providers),
            self.metering.follow,
        ]
        self.live.start()
        self.recorder.ledger.ready()
        self.issued = ProvenanceStore(self._state)
        self.learned = UnsupportedStore(self._state)

    @property
    def rules(self) -> Rules:
        return self.live.rules

    def admits(self, peer: Client) -> bool:
        """Without clients in the rules only this machine may connect, wherever a listener is bound.

        mitmproxy's own `block_private` lets 100.64.0.0/10 through (mitmproxy.md, 8).
        """
        return bool(self.rules.clients) or self._may_go_elsewhere(peer)

    def _may_go_elsewhere(self, peer: Client) -> bool:
        """Whether a forward proxy takes this machine's peer to hosts that no secret is asked for."""
        return self.unwalled or arrival.is_loopback(peer.peername[0])

    # hooks, in the order in which a flow meets them

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        rules = self.rules
        try:
            if flow.is_replay and replays.is_refused(
                flow
            ):  # one that was queued before the router was loaded
                log.warning("%s", replays.REFUSAL)
                flow.response = answers.error(403, replays.REFUSAL)
            elif arrival.is_for_us(flow, rules):
                self._receive(flow, rules)
            elif not self._may_go_elsewhere(flow.client_conn):
                flow.response = elsewhere()
            else:
                arrival.let_pass(flow.request, rules)
        except Exception as fault:
            log.error("fault when a request came in: %s", place(fault))
            self._fail_open(flow, exchanges.get(flow))

    def http_connect(self, flow: http.HTTPFlow) -> None:
        is_ours = arrival.is_anthropic(flow.request.host, flow.request.port, self.rules)
        if not is_ours and not self._may_go_elsewhere(flow.client_conn):
            flow.response = elsewhere()

    def request(self, flow: http.HTTPFlow) -> Awaitable[None] | None:
        exchange = exchanges.get(flow)
        if exchange is None or flow.response:
            return None
        if exchange.kind == "models":
            return self._list(flow, exchange)
        if not exchange.is_messages_request:
            return None
        try:
            if exchange.failed_open:
                return None
            is_long = takes_long(flow.request, exchange)
            routing = dispatch.route(flow, exchange, self._services(exchange), is_long=is_long)
            if is_long:
                return self._route_in_thread(flow, exchange, routing)
            in_place(routing)
        except Exception as fault:
            log.error("fault when a request was routed: %s", place(fault))
            self._fail_open(flow, exchange)
        return None

    async def _route_in_thread(self, flow: http.HTTPFlow, exchange: Exchange, routing: Work[None]) -> None:
        try:
            await in_thread(routing)
        except Exception as fault:
            log.error("fault when a request was routed: %s", place(fault))
            self._fail_open(flow, exchange)

    def signalbox_attempt(self, flow: http.HTTPFlow) -> None:
        """Not mitmproxy's: `FailoverStream` says that an attempt failed and another one follows."""
        exchange = exchanges.get(flow)
        if exchange is None or exchange.provider is None:
            return
        try:
            if flow.response is not None:
                self._answered(exchange, flow.response.status_code)
        except Exception as fault:
            log.error("fault when an attempt had failed: %s", place(fault))

    async def signalbox_renew(self, flow: http.HTTPFlow) -> None:
        """Not mitmproxy's: a key that a command printed was refused (the contract, section 2)."""
        exchange = exchanges.get(flow)
        if exchange is None or exchange.dispatch is None or exchange.provider is None:
            return
        try:
            if (command := exchange.dispatch.key_command) is not None:
                await self.live.renew(command, exchange.attempts[-1].started)
                exchange.renewed = self.rules.providers.get(exchange.provider.name)
        except Exception as fault:
            log.error("fault when a key was renewed: %s", place(fault))

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        exchange = exchanges.get(flow)
        if exchange is None or flow.response is None:
            return
        try:
            if exchange.kind == "pipe":
                flow.response.stream = True
                self.metering.hear_pipe(flow, exchange)
            elif exchange.is_messages_request and arrival.came_from_upstream(flow):
                self._answered(exchange, flow.response.status_code)
        except Exception as fault:
            log.error("fault when an answer came: %s", place(fault))
            flow.response.stream = True
        arrival.drop_foreign_headers(flow, exchange)
        flow.response.headers.update(exchange.headers())

    def response(self, flow: http.HTTPFlow) -> None:
        self._record(flow)

    def error(self, flow: http.HTTPFlow) -> None:
        exchange = exchanges.get(flow)
        if exchange is not None:
            if self.closing or (exchange.ending == "done" and _left(flow)):
                exchange.cancel()
            else:
                exchange.fail()
        self._record(flow)

    def resume(self) -> None:
        """router.py was loaded again; nothing has ended."""
        if self.closing:
            self.closing = False
            self.recorder.follow(self.rules)
            self.issued.resume()

    def done(self) -> None:
        self.closing = True
        self.recorder.close()
        self.issued.close()
        self.metering.close()
        self.learned.close()

    # behind them

    def _services(self, exchange: Exchange) -> dispatch.Services:
        provider_health = self.provider_health if exchange.kind == "messages" else self.counting
        return dispatch.Services(self.metering, self.sessions, provider_health, self.issued, self.learned)

    def _receive(self, flow: http.HTTPFlow, rules: Rules) -> None:
        headers = tuple(flow.request.headers.items(multi=True))
        caller = identify(headers, rules.clients)
        kind = arrival.kind(flow, rules)
        if caller is None and (kind == "own" or not arrival.is_api(flow)):  # which ask for no secret
            caller = Caller(less_clients(headers, rules.clients))
        exchange = Exchange(
            rules,
            kind,
            caller or Caller(()),
            id=flow.id,
            started=time.monotonic(),
            ts=datetime.now(UTC),
        )
        exchange.listener = self.metering.hear
        exchange.provenance = self.issued
        exchanges[flow] = exchange
        arrival.mask(flow, exchange, headers)
        if exchange.is_messages_request or exchange.hidden:
            flow.metadata[replays.MARK] = {}
        if not self.admits(flow.client_conn):  # connected while there were clients in the rules
            arrival.refuse(flow, exchange, partial(answers.error, 403, WALL))
        elif refused := self._page_refusal(flow, exchange, headers):
            log.warning("%s", console.refused_line(flow.request.method, exchange.shown_path, refused))
            arrival.refuse(flow, exchange, partial(answers.error, 403, f"{PAGE}: {refused}."))
        elif exchange.kind == "own":
            flow.response = self._own_answer(flow, full=arrival.is_trusted(flow, caller))
        elif caller is None:
            arrival.refuse(flow, exchange, arrival.no_secret)
        elif exchange.is_messages_request and arrival.announced_size(flow) > rules.body_limit:
            arrival.refuse(flow, exchange, answers.too_large)
        else:
            flow.request.stream = exchange.kind == "pipe"

    def _page_refusal(self, flow: http.HTTPFlow, exchange: Exchange, headers: Headers) -> str | None:
        any_host = self.unwalled and not arrival.is_loopback(flow.client_conn.peername[0])
        return arrival.page_refusal(flow, exchange, headers, any_host=any_host)

    def _own_answer(self, flow: http.HTTPFlow, *, full: bool) -> http.Response:
        if arrival.path(flow) != "/health":
            return answers.answer(200)
        port = flow.client_conn.sockname[1]
        now = datetime.now(UTC)
        seen = health.Seen(
            self.observed, self.provider_health, self._refused, self.metering.quotas, self.learned.all()
        )
        page = health.page(self.live, seen, arrival.listeners(), port, now)
        return answers.answer(200, health.encode(page, full=full))

    def _refused(self, provider: Provider, model: str | None) -> tuple[str, str] | None:
        """Why nobody's request for this model is sent there now."""
        refused = self.metering.refusal_of_all(provider, model)
        return refused or self.provider_health.refusal(provider, model, time.monotonic())

    async def _list(self, flow: http.HTTPFlow, exchange: Exchange) -> None:
        try:
            await self.listing.answer(flow, exchange)
            arrival.drop_foreign_headers(flow, exchange)
            exchange.release()
        except Exception as fault:  # the upstream's own list is better than none
            log.error("fault when models were listed: %s", place(fault))
            exchange.pipe()

    def _answered(self, exchange: Exchange, status: int) -> None:
        """What a provider's answer to a message says of its key."""
        if exchange.kind == "messages":
            self.observed.answered(exchange.attempts[-1].provider.name, status)

    def _fail_open(self, flow: http.HTTPFlow, exchange: Exchange | None) -> None:
        """Nothing was sent yet: let a caller with its own credentials through unchanged, or say so."""
        if (
            exchange is None
            or not exchange.is_messages_request
            or exchange.outgoing is not None  # then the flow may be another request already
            or not exchange.caller.has_login
            or exchange.rules.fail == "closed"
        ):
            flow.response = answers.error(500, FAULT, exchange)
            return
        exchange.fail_open()
        self.observed.fail_open()
        dispatch.pass_on(flow, exchange, "fail-open")

    def _record(self, flow: http.HTTPFlow) -> None:
        exchange = exchanges.get(flow)
        if exchange is None or exchange.recorded or exchange.kind in ("own", "models"):
            return
        exchange.recorded = True
        if not exchange.is_messages_request:
            self._record_passed(flow, exchange)
            exchange.release()
            return
        try:
            recording.finish(exchange)
            recording.remember(exchange, self.sessions)
            if exchange.reader is not None and exchange.reader.fault:
                log.warning("an answer could not be read for its usage: %s", exchange.reader.fault)
            recorded = recording.entry(exchange, flow.response)
            if exchange.kind == "messages":
                self.recorder.record(recorded)
            elif log.isEnabledFor(logging.DEBUG):
                log.debug("count_tokens %s", request_line(recorded, prompts=False))
        except Exception as fault:
            log.error("fault when a request was recorded: %s", place(fault))
        exchange.release()

    def _record_passed(self, flow: http.HTTPFlow, exchange: Exchange) -> None:
        """Of what is only passed on a line where there are no rules, or where it failed; of what is refused
        always. Who has no secret leaves no record: strangers must not fill the disk."""
        is_refused = exchange.kind == "refused"
        try:
            provider = None if is_refused else dispatch.upstream(flow, exchange.rules)
            recorded = recording.passed(exchange, flow, provider)
            failed = exchange.ending == "error" or not arrival.came_from_upstream(flow)
            if not (is_refused or failed or not exchange.rules.rules):
                return
            is_message = flow.request.method == "POST" and arrival.path(flow) == MESSAGES
            if is_message and recorded.http_status not in (401, 403):
                self.recorder.record(recorded)
            else:
                self.recorder.print_line(recorded)
        except Exception as fault:
            log.error("fault when a request was recorded: %s", place(fault))


def _left(flow: http.HTTPFlow) -> bool:
    """Whether the client left before there was anything to be cut."""
    return flow.error is not None and "client disconnected" in flow.error.msg.lower()


def elsewhere() -> http.Response:
    return answers.error(403, "Only this machine may use this proxy for hosts other than Anthropic's.")


def _say(level: Level, text: str) -> None:
    log.log(LEVELS[level], "%s", text)
