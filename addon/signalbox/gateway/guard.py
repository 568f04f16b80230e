"""What answers while no router is loaded.

mitmproxy takes `router.py` away when an edit of it is broken or the file is missing for a moment; requests
would then go unrouted to the reverse upstream (mitmproxy.md, 6). The guard is registered once, outside the
script, and stays.
"""

from mitmproxy import http

from signalbox.gateway.arrival import ROUTED, is_reverse, let_pass, path
from signalbox.gateway.gateway import Gateway
from signalbox.messages.paths import MODELS
from signalbox.proxy.answers import error
from signalbox.proxy.flows import exchanges
from signalbox.proxy.requests import mask_headers

AWAY = "The router is being loaded again, or router.py is broken: see its log."


class Guard:
    name = "signalbox-guard"

    def __init__(self) -> None:
        self.on_duty = False
        self.gateway: Gateway | None = None
        """Where answers that were under way are still delivered and recorded."""

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        if self.on_duty and (is_reverse(flow) or path(flow) in (*ROUTED, MODELS)):
            mask_headers(flow.request.headers)
            flow.request.stream = False
            flow.response = error(503, AWAY)
        elif self.on_duty and self.gateway is not None:
            let_pass(flow.request, self.gateway.rules)

    def request(self, flow: http.HTTPFlow) -> None:
        """For one whose head came before the router went."""
        if self.on_duty and not flow.response and (is_reverse(flow) or path(flow) in ROUTED):
            flow.response = error(503, AWAY, exchanges.get(flow))

    def signalbox_attempt(self, flow: http.HTTPFlow) -> None:
        if self.on_duty and self.gateway is not None:
            self.gateway.signalbox_attempt(flow)

    async def signalbox_renew(self, flow: http.HTTPFlow) -> None:
        if self.on_duty and self.gateway is not None:
            await self.gateway.signalbox_renew(flow)

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        if self.on_duty and self.gateway is not None:
            self.gateway.responseheaders(flow)

    def response(self, flow: http.HTTPFlow) -> None:
        if self.on_duty and self.gateway is not None:
            self.gateway.response(flow)

    def error(self, flow: http.HTTPFlow) -> None:
        if self.on_duty and self.gateway is not None:
            self.gateway.error(flow)
