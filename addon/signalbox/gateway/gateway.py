"""The hooks, and what lives as long as the process.

mitmproxy may load `router.py` again at any time; what flows in flight, rules and sessions know must not
depend on that file, so it is all held here.
"""

import logging
import os
import time
from datetime import UTC, datetime
from pathlib import Path

from mitmproxy import http

from signalbox.config.rules import Rules
from signalbox.config.watch import Live
from signalbox.gateway import arrival, delivery, departure
from signalbox.gateway.recording import entry
from signalbox.pages import health
from signalbox.proxy import answers
from signalbox.proxy.faults import place
from signalbox.proxy.flows import exchanges
from signalbox.record.console import request_line
from signalbox.record.journal import Journal
from signalbox.record.log import LEVELS
from signalbox.routing.credentials import Caller, identify
from signalbox.routing.exchange import Exchange
from signalbox.routing.sessions import Sessions

log = logging.getLogger("signalbox")

FAULT = "The router failed; its log says where."


class Gateway:
    """The state of one router: rules in force, sessions, what each provider last said, the journal."""

    def __init__(self, rules: Path, state: Path) -> None:
        self.live = Live(rules, os.environ, log=_say)
        self.sessions = Sessions()
        self.observed = health.Observed()
        self.journal = Journal(state)

    def start(self) -> None:
        """Load the rules for the first time. Raises RulesError."""
        self.live.start()
        self.journal.follow(self.live.rules)
        self.live.on_change.append(self.journal.follow)

    @property
    def rules(self) -> Rules:
        return self.live.rules

    # hooks, in the order in which a flow meets them

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        rules = self.rules
        try:
            if arrival.is_for_us(flow, rules):
                self._receive(flow, rules)
        except Exception as fault:
            log.error("fault when a request came in: %s", place(fault))
            if rules.clients or rules.fail == "closed":
                flow.response = answers.error(500, FAULT)

    def request(self, flow: http.HTTPFlow) -> None:
        exchange = exchanges.get(flow)
        if exchange is None or not exchange.ours or flow.response:
            return
        try:
            departure.route(flow, exchange, self.sessions)
        except Exception as fault:
            log.error("fault when a request was routed: %s", place(fault))
            self._fail_open(flow, exchange)

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        exchange = exchanges.get(flow)
        if exchange is None or flow.response is None:
            return
        try:
            if exchange.kind == "pipe":
                flow.response.stream = True
            elif exchange.ours and arrival.came_from_upstream(flow):
                delivery.deliver(flow, exchange, self.observed)
        except Exception as fault:
            log.error("fault when an answer came: %s", place(fault))
            flow.response.stream = True
        flow.response.headers.update(exchange.headers())

    def response(self, flow: http.HTTPFlow) -> None:
        self._record(flow)

    def error(self, flow: http.HTTPFlow) -> None:
        exchange = exchanges.get(flow)
        if exchange is not None and exchange.ending == "done":
            exchange.ending = "error"
        self._record(flow)

    def done(self) -> None:
        self.journal.close()

    # behind them

    def _receive(self, flow: http.HTTPFlow, rules: Rules) -> None:
        headers = tuple(flow.request.headers.items(multi=True))
        caller = identify(headers, rules.clients)
        exchange = Exchange(
            rules,
            arrival.kind(flow, rules),
            caller or Caller(()),
            started=time.monotonic(),
            ts=datetime.now(UTC),
        )
        exchanges[flow] = exchange
        arrival.mask(flow, exchange, headers)
        if exchange.kind == "own":
            flow.response = self._own_answer(flow, full=arrival.is_trusted(flow, caller))
        elif caller is None:
            arrival.refuse(flow, exchange, arrival.no_secret())
        elif exchange.ours and arrival.announced_size(flow) > rules.body_limit:
            arrival.refuse(flow, exchange, answers.too_large(rules.body_limit))
        else:
            flow.request.stream = exchange.kind == "pipe"

    def _own_answer(self, flow: http.HTTPFlow, *, full: bool) -> http.Response:
        if arrival.path(flow) != "/health":
            return answers.answer(200)
        port = flow.client_conn.sockname[1]
        page = health.page(self.live, self.observed, arrival.listeners(), port, datetime.now(UTC))
        return answers.answer(200, health.encode(page, full=full))

    def _fail_open(self, flow: http.HTTPFlow, exchange: Exchange) -> None:
        """Nothing was sent yet: let a caller with its own credentials through unchanged, or say so."""
        exchange.outgoing = None
        exchange.provider = None
        if exchange.rules.fail == "open" and arrival.has_own_credentials(exchange.caller):
            exchange.label = "fail-open"
            self.observed.fail_open()
            departure.pass_on(flow, exchange, "fail-open")
        else:
            flow.response = answers.error(500, FAULT)

    def _record(self, flow: http.HTTPFlow) -> None:
        exchange = exchanges.get(flow)
        if exchange is None or exchange.recorded or not exchange.ours:
            return
        exchange.recorded = True
        try:
            delivery.remember(exchange, self.sessions)
            recorded = entry(exchange, flow.response.status_code if flow.response else None)
            if exchange.kind == "messages":
                self.journal.enter(recorded)
            elif log.isEnabledFor(logging.DEBUG):
                log.debug("count_tokens %s", request_line(recorded, prompts=False))
        except Exception as fault:
            log.error("fault when a request was recorded: %s", place(fault))


def _say(level: str, text: str) -> None:
    log.log(next((number for name, number in LEVELS.items() if name == level), logging.INFO), "%s", text)
