"""Signalbox for mitmproxy: `mitmdump -s addon/router.py --mode reverse:https://api.anthropic.com@127.0.0.1:8082`.

Only options, hooks and commands are here. mitmproxy loads this file again whenever it changes and forgets
what it knew, so whatever lasts is in `signalbox`.
"""

from collections.abc import Awaitable

from mitmproxy import ctx, http
from mitmproxy.addonmanager import Loader
from mitmproxy.connection import Client
from mitmproxy.proxy.layer import NextLayer

from signalbox.app import App
from signalbox.proxy import setup
from signalbox.proxy.addon import Hooks


class Router:
    def load(self, loader: Loader) -> None:
        self.app = App.of(ctx.master)
        self.hooks = Hooks(self.app)
        loader.add_option("router_rules", str, "", "Path of the rules; default: rules.yaml beside addon/.")
        loader.add_option("router_state", str, "", "Folder for logs and learned facts; default: per user.")

    def configure(self, updated: set[str]) -> None:
        if updated & {"router_rules", "router_state"}:
            self.app.open(ctx.options.router_rules, ctx.options.router_state)

    def running(self) -> None:
        self.app.run()

    def done(self) -> None:
        self.app.close()

    def client_connected(self, client: Client) -> None:
        setup.client_connected(self.app, client)

    def next_layer(self, nextlayer: NextLayer) -> None:
        setup.next_layer(self.app, nextlayer)

    def http_connect(self, flow: http.HTTPFlow) -> None:
        if not flow.response and not flow.error and flow.live:
            self.hooks.http_connect(flow)

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        if not flow.response and not flow.error and flow.live:
            self.hooks.requestheaders(flow)

    def request(self, flow: http.HTTPFlow) -> Awaitable[None] | None:
        if not flow.response and not flow.error and flow.live:
            return self.hooks.request(flow)
        return None

    def signalbox_attempt(self, flow: http.HTTPFlow) -> None:
        self.hooks.signalbox_attempt(flow)

    async def signalbox_renew(self, flow: http.HTTPFlow) -> None:
        await self.hooks.signalbox_renew(flow)

    def signalbox_refresh(self, flow: http.HTTPFlow) -> Awaitable[None] | None:
        return self.app.stores.refresh(self.app.exchanges[flow].rules)

    async def signalbox_learned(self, flow: http.HTTPFlow) -> None:
        await self.app.stores.provenance.written()

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        self.hooks.responseheaders(flow)

    def response(self, flow: http.HTTPFlow) -> None:
        self.hooks.response(flow)

    def error(self, flow: http.HTTPFlow) -> None:
        self.hooks.error(flow)


addons = [Router()]
