"""Signalbox for mitmproxy: `mitmdump -s addon/router.py --mode reverse:https://api.anthropic.com@127.0.0.1:8082`.

Only options, hooks and commands are here. mitmproxy loads this file again whenever it changes and forgets
what it knew, so whatever lasts is in `signalbox`.
"""

from collections.abc import Awaitable

from mitmproxy import ctx, http
from mitmproxy.addonmanager import Loader
from mitmproxy.connection import Client
from mitmproxy.proxy.layer import NextLayer

from signalbox.gateway.house import house


class Router:
    def load(self, loader: Loader) -> None:
        house.set_up(ctx.master)
        loader.add_option("router_rules", str, "", "Path of the rules; default: rules.yaml beside addon/.")
        loader.add_option("router_state", str, "", "Folder for logs and learned facts; default: per user.")

    def configure(self, updated: set[str]) -> None:
        if updated & {"router_rules", "router_state"}:
            house.open(ctx.options.router_rules, ctx.options.router_state)

    def running(self) -> None:
        house.watch()

    def done(self) -> None:
        house.close()

    def client_connected(self, client: Client) -> None:
        house.admit(client)

    def next_layer(self, nextlayer: NextLayer) -> None:
        house.lay(nextlayer)

    def http_connect(self, flow: http.HTTPFlow) -> None:
        if not flow.response and not flow.error and flow.live:
            house.gateway.http_connect(flow)

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        if not flow.response and not flow.error and flow.live:
            house.gateway.requestheaders(flow)

    def request(self, flow: http.HTTPFlow) -> Awaitable[None] | None:
        if not flow.response and not flow.error and flow.live:
            return house.gateway.request(flow)
        return None

    def signalbox_attempt(self, flow: http.HTTPFlow) -> None:
        house.gateway.signalbox_attempt(flow)

    async def signalbox_renew(self, flow: http.HTTPFlow) -> None:
        await house.gateway.signalbox_renew(flow)

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        house.gateway.responseheaders(flow)

    def response(self, flow: http.HTTPFlow) -> None:
        house.gateway.response(flow)

    def error(self, flow: http.HTTPFlow) -> None:
        house.gateway.error(flow)


addons = [Router()]
