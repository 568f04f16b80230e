"""What answers while no router is loaded.

mitmproxy takes `router.py` away when an edit of it is broken or the file is missing for a moment; requests
would then go unrouted to the reverse upstream (mitmproxy.md, 6). The guard is registered once, outside the
script, and stays.
"""

from typing import TYPE_CHECKING

from mitmproxy import http

from signalbox.anthropic.api import MODELS
from signalbox.proxy.addon import Hooks
from signalbox.proxy.classify import ROUTED, is_reverse, let_pass, path
from signalbox.proxy.headers import mask_headers
from signalbox.proxy.local_responses import error

if TYPE_CHECKING:
    from signalbox.app import App

RELOADING = "The router is being loaded again, or router.py is broken: see its log."


class ReloadGuard:
    name = "signalbox-guard"

    def __init__(self, app: "App") -> None:
        self.app = app
        self.active = False
        """Whether no router is loaded. Answers that were under way are still delivered and recorded."""
        self._hooks = Hooks(app)

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        if self.active and (is_reverse(flow) or path(flow) in (*ROUTED, MODELS)):
            mask_headers(flow.request.headers)
            flow.request.stream = False
            flow.response = error(503, RELOADING)
        elif self.active:
            let_pass(flow.request, self.app.rules)

    def request(self, flow: http.HTTPFlow) -> None:
        """For a request whose head came before the router went."""
        if self.active and not flow.response and (is_reverse(flow) or path(flow) in ROUTED):
            flow.response = error(503, RELOADING, self.app.exchanges.get(flow))

    def signalbox_attempt(self, flow: http.HTTPFlow) -> None:
        if self.active:
            self._hooks.signalbox_attempt(flow)

    async def signalbox_renew(self, flow: http.HTTPFlow) -> None:
        if self.active:
            await self._hooks.signalbox_renew(flow)

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        if self.active:
            self._hooks.responseheaders(flow)

    def response(self, flow: http.HTTPFlow) -> None:
        if self.active:
            self._hooks.response(flow)

    def error(self, flow: http.HTTPFlow) -> None:
        if self.active:
            self._hooks.error(flow)
