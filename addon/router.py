"""Signalbox for mitmproxy: `mitmdump -s addon/router.py --mode reverse:https://api.anthropic.com@127.0.0.1:8082`.

Only options, hooks and commands are here. mitmproxy loads this file again whenever it changes and forgets
what it knew, so whatever lasts is in `signalbox`.
"""

from collections.abc import Awaitable, Sequence

from mitmproxy import command, ctx, http
from mitmproxy.addonmanager import Loader
from mitmproxy.connection import Client
from mitmproxy.flow import Flow
from mitmproxy.proxy.layer import NextLayer

from signalbox.app import App
from signalbox.proxy import setup
from signalbox.proxy.addon import Hooks
from signalbox.proxy.commands import ConsoleCommands


class Router:
    def load(self, loader: Loader) -> None:
        self.app = App.of(ctx.master)
        self.hooks = Hooks(self.app)
        self.commands = ConsoleCommands(self.app)
        loader.add_option("router_rules", str, "", "Path of the rules; default: rules.yaml beside addon/.")
        loader.add_option("router_state", str, "", "Folder for logs and learned facts; default: per user.")

    def configure(self, updated: set[str]) -> None:
        if updated & {"router_rules", "router_state"}:
            self.app.open(ctx.options.router_rules, ctx.options.router_state)

    def running(self) -> None:
        self.app.run()

    @command.command("signalbox.rules")
    def rules(self) -> Sequence[str]:
        """The rules in force."""
        return self.commands.rules()

    @command.command("signalbox.providers")
    def providers(self) -> Sequence[str]:
        """The providers, with circuit and quota."""
        return self.commands.providers()

    @command.command("signalbox.reload")
    def reload(self) -> Sequence[str]:
        """Load the rules again now."""
        return self.commands.reload()

    @command.command("signalbox.explain")
    def explain(self, flow: Flow) -> Sequence[str]:
        """What the rules make of the request of a flow: @focus, @ID, @marked or a filter."""
        return self.commands.explain(flow)

    def done(self) -> None:
        self.app.close()

    @command.command("signalbox.replay")
    def replay(self, flow: Flow, target: str) -> Sequence[str]:
        """Send the client's request of a flow to another target, provider/model, and compare the answers."""
        return self.commands.replay(flow, target)

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
