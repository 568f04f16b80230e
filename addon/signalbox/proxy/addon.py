"""mitmproxy's hooks, in the order in which a flow meets them."""

import logging
import time
from collections.abc import Awaitable
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING

from mitmproxy import http

from signalbox.anthropic.api import MESSAGES
from signalbox.config.rules import Rules
from signalbox.errors import log_error
from signalbox.exchange import Exchange, RequestKind
from signalbox.inspect import annotations
from signalbox.inspect.retention import Part, Stream
from signalbox.proxy import classify, dispatch, local_responses, recording
from signalbox.proxy.classify import LOOPBACK_ONLY
from signalbox.proxy.headers import is_sizeable, plain_headers, takes_long, to_headers
from signalbox.proxy.replay import Replay
from signalbox.record import console
from signalbox.record.console import request_line
from signalbox.routing import local_pages
from signalbox.routing.browsers import is_loopback
from signalbox.routing.credentials import Caller, Headers, identify
from signalbox.routing.local_pages import PageRefusal
from signalbox.routing.plan import no_rule_label
from signalbox.routing.work import LoopTurns, Work, in_place, in_thread

if TYPE_CHECKING:
    from signalbox.app import App

log = logging.getLogger("signalbox")

OTHER_HOST = "Only this machine may use this proxy for hosts other than Anthropic's."
PAGE = "Web pages may not use this router"
POLLED = ("metrics", "session", "ui")
"""Pages that are asked for again every few seconds, which would push the flows of requests out of mitmweb."""
ROUTER_FAILED = "The router failed; its log says where."


class Hooks:
    def __init__(self, app: "App") -> None:
        self.app = app
        self._turns = LoopTurns()
        """Of requests that are looked into on the event loop."""

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        rules = self.app.rules
        try:
            if (replay := self.app.replays.get(flow)) is not None:
                self._receive_replay(flow, replay)
            elif flow.is_replay and classify.is_refused_replay(
                flow
            ):  # one that was queued before the router was loaded
                log.warning("%s", classify.REPLAY_REFUSED)
                flow.response = local_responses.error(403, classify.REPLAY_REFUSED)
            elif classify.is_for_us(flow, rules):
                self._receive(flow, rules)
            elif not is_loopback(flow.client_conn.peername[0]):
                flow.response = local_responses.error(403, OTHER_HOST)
            else:
                self.app.exchanges.pop(flow, None)  # of the flow's first request, where mitmproxy replays it
                classify.let_pass(flow.request, rules)
        except Exception as error:
            log_error("the requestheaders hook", error)
            self._fail_open(flow, self.app.exchanges.get(flow))

    def http_connect(self, flow: http.HTTPFlow) -> None:
        is_ours = classify.is_anthropic(flow.request.host, flow.request.port, self.app.rules)
        if not is_ours and not is_loopback(flow.client_conn.peername[0]):
            flow.response = local_responses.error(403, OTHER_HOST)

    def request(self, flow: http.HTTPFlow) -> Awaitable[None] | None:
        exchange = self.app.exchanges.get(flow)
        if exchange is None or flow.response:
            return None
        if exchange.kind == "models":
            return self._list(flow, exchange)
        if exchange.kind == "own":
            return self._show_page(flow, exchange)
        if exchange.kind == "pipe":
            self.app.retention.mask_passing(flow, exchange)
        if not exchange.is_messages_request:
            return None
        try:
            if exchange.failed_open:
                self.app.retention.mask_rest(flow, exchange)
                return None
            is_long = takes_long(flow.request, exchange)
            routing = dispatch.route(flow, exchange, self.app.stores.services(exchange.kind), is_long=is_long)
            if is_long:
                return self._route_in_thread(flow, exchange, routing)
            if is_sizeable(flow.request) and not self._turns.take():
                return self._route_in_turn(flow, exchange, routing)
            in_place(routing)
            in_place(self.app.retention.show_attempt(flow, exchange))
        except Exception as error:
            log_error("the request hook", error)
            self._fail_open(flow, exchange)
        return None

    async def _route_in_turn(self, flow: http.HTTPFlow, exchange: Exchange, routing: Work[None]) -> None:
        await self._turns.come()
        try:
            in_place(routing)
            in_place(self.app.retention.show_attempt(flow, exchange))
        except Exception as error:
            log_error("the request hook", error)
            self._fail_open(flow, exchange)

    async def _route_in_thread(self, flow: http.HTTPFlow, exchange: Exchange, routing: Work[None]) -> None:
        try:
            await in_thread(routing)
            await in_thread(self.app.retention.show_attempt(flow, exchange))
        except Exception as error:
            log_error("the request hook", error)
            self._fail_open(flow, exchange)

    def signalbox_attempt(self, flow: http.HTTPFlow) -> None:
        """Not mitmproxy's: `RoutedStream` says that an attempt failed and another one follows."""
        exchange = self.app.exchanges.get(flow)
        if exchange is None or exchange.provider is None:
            return
        try:
            if flow.response is not None:
                self._answered(exchange, flow.response.status_code)
        except Exception as error:
            log_error("the signalbox_attempt hook", error)

    async def signalbox_renew(self, flow: http.HTTPFlow) -> None:
        """Not mitmproxy's: a key that a command printed was refused (the contract, section 2), or a login."""
        exchange = self.app.exchanges.get(flow)
        if exchange is None or exchange.dispatch is None or exchange.provider is None:
            return
        try:
            if (command := exchange.dispatch.key_command) is not None:
                await self.app.stores.live.renew(command, exchange.attempts[-1].started)
                exchange.renewed = self.app.rules.providers.get(exchange.provider.name)
            elif exchange.provider.uses_login:
                await self.app.stores.read_logins(exchange.rules)
                exchange.login_tokens = self.app.stores.quota.logins.tokens(exchange.rules)
        except Exception as error:
            log_error("the signalbox_renew hook", error)

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        exchange = self.app.exchanges.get(flow)
        if exchange is None or flow.response is None:
            return
        more: dict[str, str] = {}
        try:
            if exchange.kind == "pipe":
                flow.response.stream = self._streamed(flow, exchange, "response")
                provider, status = dispatch.upstream(flow, exchange.rules), flow.response.status_code
                headers = plain_headers(flow.response)
                self.app.stores.quota.observe(provider, exchange.caller, status, headers)
                is_messages = flow.request.method == "POST" and classify.path(flow) in classify.ROUTED
                if is_messages and status >= HTTPStatus.OK:  # there are no rules
                    label = no_rule_label(exchange.rules)
                    more = exchange.headers_of_passed(provider, status, headers, label)
            elif exchange.is_messages_request and classify.came_from_upstream(flow):
                self._answered(exchange, flow.response.status_code)
        except Exception as error:
            log_error("the responseheaders hook", error)
            flow.response.stream = True
        classify.drop_foreign_headers(flow, exchange)
        flow.response.headers.update(exchange.headers() | more)

    def response(self, flow: http.HTTPFlow) -> None:
        self._ended(flow)

    def error(self, flow: http.HTTPFlow) -> None:
        exchange = self.app.exchanges.get(flow)
        if exchange is not None:
            if self.app.closing or (exchange.ending == "done" and _left(flow)):
                exchange.cancel()
            else:
                exchange.fail()
        self._ended(flow)

    def _ended(self, flow: http.HTTPFlow) -> None:
        self._record(flow)
        exchange = self.app.exchanges.get(flow)
        is_page = exchange is not None and exchange.kind == "own" and classify.local_page(flow) in POLLED
        self.app.retention.ended(flow, keep=not is_page)
        if (replay := self.app.replays.get(flow)) is not None:
            replay.ended.set()

    # one step each

    def _receive(self, flow: http.HTTPFlow, rules: Rules) -> None:
        headers = tuple(flow.request.headers.items(multi=True))
        caller = identify(headers, rules.clients, self.app.client_hosts.get(flow.request))
        kind = classify.kind(flow, rules)
        if caller is None and (kind == "own" or not classify.is_api(flow)):  # which ask for no secret
            caller = Caller.of(headers, rules.clients)
        exchange = self._begin(flow, rules, kind, caller or Caller(()), headers)
        if not self.app.admits(
            flow.client_conn.peername[0]
        ):  # connected while there were clients in the rules
            classify.refuse(flow, exchange, partial(local_responses.error, 403, LOOPBACK_ONLY))
        elif refused := self._page_refusal(flow, exchange, headers):
            log.warning("%s", console.refused_line(flow.request.method, exchange.shown_path, refused))
            classify.refuse(flow, exchange, partial(local_responses.error, 403, f"{PAGE}: {refused}."))
        elif exchange.kind == "own":
            self._receive_for_page(flow, exchange, headers)
        elif caller is None:
            classify.refuse(flow, exchange, classify.no_secret)
        elif exchange.is_messages_request and classify.announced_size(flow) > rules.body_limit:
            classify.refuse(flow, exchange, local_responses.too_large)
        else:
            is_piped = exchange.kind == "pipe"
            flow.request.stream = is_piped and self._streamed(flow, exchange, "request")

    def _receive_replay(self, flow: http.HTTPFlow, replay: Replay) -> None:
        headers = tuple(flow.request.headers.items(multi=True))
        caller = Caller.of(headers, {}, replay.client)
        self._begin(flow, replay.rules, classify.kind(flow, replay.rules), caller, headers)

    def _begin(
        self, flow: http.HTTPFlow, rules: Rules, kind: RequestKind, caller: Caller, headers: Headers
    ) -> Exchange:
        """`headers` are those that came; `caller` has them without what is for this router alone."""
        exchange = Exchange(
            rules,
            kind,
            caller,
            id=flow.id,
            started=time.monotonic(),
            ts=datetime.now(UTC),
            provenance=self.app.stores.provenance,
        )
        self.app.exchanges[flow] = exchange
        exchange.is_shown = self.app.retention.shows
        exchange.login_tokens = self.app.stores.quota.logins.tokens(rules)
        classify.mask(flow, exchange, headers)
        exchange.asked_path = exchange.path
        if exchange.is_messages_request or exchange.hidden:
            flow.metadata[annotations.METADATA] = {}
        return exchange

    def _streamed(self, flow: http.HTTPFlow, exchange: Exchange, part: Part) -> Stream:
        """How a body passes that is not routed. Those of the API are shown; others may hold logins."""
        is_stored = classify.is_shown(flow) or exchange.rules.inspect.secrets == "show"
        return self.app.retention.pass_on(flow, exchange, part) if is_stored else True

    def _page_refusal(self, flow: http.HTTPFlow, exchange: Exchange, headers: Headers) -> str | None:
        host = self.app.client_hosts.get(flow.request)
        any_host = self.app.is_open and not is_loopback(flow.client_conn.peername[0])
        return classify.page_refusal(flow, exchange, headers, host, any_host=any_host)

    def _receive_for_page(self, flow: http.HTTPFlow, exchange: Exchange, headers: Headers) -> None:
        """Answer what is answered at once; the other pages are made once the request is whole."""
        page, peer = classify.local_page(flow), flow.client_conn.peername[0]
        assert page is not None
        reader = local_pages.reader_of(headers, exchange.rules.clients)
        exchange.reads_conversations = local_pages.may_read_conversations(
            peer=peer, reader=reader, rules=exchange.rules
        )
        refused = local_pages.reader_refusal(
            page,
            flow.request.method,
            has_body=classify.request_has_body(flow),
            peer=peer,
            reader=reader,
            rules=exchange.rules,
        )
        if refused is not None:
            classify.refuse(flow, exchange, lambda _: local_responses.page_refused(refused))
        elif page == "hello":
            flow.response = local_responses.answer(200)
        elif page == "health":
            full = reader is not None or is_loopback(peer)  # strangers see no more than the status
            body = self.app.health_page(flow.client_conn.sockname[1], full=full)
            flow.response = local_responses.answer(200, body if flow.request.method == "GET" else b"")

    async def _show_page(self, flow: http.HTTPFlow, exchange: Exchange) -> None:
        path, _, query = flow.request.path.partition("?")
        try:
            shown = await self.app.render_page(path, query, conversations=exchange.reads_conversations)
            body = shown.body if flow.request.method == "GET" else b""
            flow.response = local_responses.page_response(
                shown.status, body, shown.content_type, shown.headers
            )
        except Exception as error:
            log_error(f"the page {classify.local_page(flow)}", error)
            flow.response = local_responses.page_refused(PageRefusal(500, ROUTER_FAILED))

    async def _list(self, flow: http.HTTPFlow, exchange: Exchange) -> None:
        try:
            answer = await self.app.models_page(exchange, dispatch.upstream(flow, exchange.rules))
            if isinstance(answer, bytes):
                flow.response = local_responses.answer(200, answer)
            else:
                flow.response = http.Response.make(answer.status, answer.body, to_headers(answer.headers))
            classify.drop_foreign_headers(flow, exchange)
            exchange.release()
        except Exception as error:  # the upstream's own list is better than none
            log_error("the model list", error)
            exchange.pipe()

    def _answered(self, exchange: Exchange, status: int) -> None:
        """What a provider's answer to a message says of its key."""
        if exchange.kind == "messages":
            self.app.stores.answered(exchange.attempts[-1].provider.name, status)

    def _fail_open(self, flow: http.HTTPFlow, exchange: Exchange | None) -> None:
        """Nothing was sent yet: let a caller with its own credentials through unchanged, or say so."""
        if (
            exchange is None
            or not exchange.is_messages_request
            or exchange.outgoing is not None  # then the flow may be another request already
            or not exchange.caller.has_login
            or exchange.rules.fail == "closed"
        ):
            flow.response = local_responses.error(500, ROUTER_FAILED, exchange)
            return
        exchange.fail_open()
        self.app.failed_open_at = time.monotonic()
        dispatch.pass_on(flow, exchange, "fail-open")
        self.app.retention.mask_rest(flow, exchange)

    def _record(self, flow: http.HTTPFlow) -> None:
        exchange = self.app.exchanges.get(flow)
        if exchange is None or exchange.recorded or exchange.kind in ("own", "models"):
            return
        exchange.recorded = True
        if exchange.kind == "pipe":
            self.app.retention.mask_passing(flow, exchange)
        else:
            self.app.retention.mask_rest(flow, exchange)
        if not exchange.is_messages_request:
            self._record_passed(flow, exchange)
            exchange.release()
            return
        try:
            recording.finish(exchange)
            recording.remember(exchange, self.app.stores.sessions)
            if exchange.answer is not None and exchange.answer.fault:
                log.warning("an answer could not be read for its usage: %s", exchange.answer.fault)
            account = self.app.stores.quota.account_name(exchange.provider, exchange.caller)
            recorded = recording.entry(exchange, flow.response, self.app.prices, account)
            annotations.annotate_answer(flow, exchange, recorded)
            if exchange.kind == "messages":
                self.app.stores.recorder.record(recorded, recording.cacheable(exchange, self.app.prices))
            elif log.isEnabledFor(logging.DEBUG):
                log.debug("count_tokens %s", request_line(recorded, prompts=False))
        except Exception as error:
            log_error("the record of a request", error)
        exchange.release()

    def _record_passed(self, flow: http.HTTPFlow, exchange: Exchange) -> None:
        """Of what is only passed on a line where there are no rules, or where it failed; of what is refused
        always. Who has no secret leaves no record: strangers must not fill the disk."""
        is_refused = exchange.kind == "refused"
        try:
            provider = None if is_refused else dispatch.upstream(flow, exchange.rules)
            recorded = recording.passed(exchange, flow, provider, self.app.prices)
            failed = exchange.ending == "error" or not classify.came_from_upstream(flow)
            if is_refused:
                annotations.annotate_answer(flow, exchange, recorded)
            if not (is_refused or failed or not exchange.rules.rules):
                return
            is_message = flow.request.method == "POST" and classify.path(flow) == MESSAGES
            if is_message and recorded.http_status not in (401, 403):
                self.app.stores.recorder.record(recorded)
            else:
                self.app.stores.recorder.print_line(recorded)
        except Exception as error:
            log_error("the record of a request", error)


def _left(flow: http.HTTPFlow) -> bool:
    """Whether the client left before there was anything to be cut."""
    return flow.error is not None and "client disconnected" in flow.error.msg.lower()
