"""Connections of one client as mitmproxy opens them, with the two ends that it does not notice."""

from mitmproxy.connection import Client, ConnectionState
from mitmproxy.master import Master
from mitmproxy.proxy import commands, events, server_hooks
from mitmproxy.proxy.mode_servers import ProxyConnectionHandler

RESET = "Connection reset by peer"


def adopt_handler(master: Master, client: Client) -> None:
    """Make what handles a client that has just connected ours."""
    handler = master.addons.get("proxyserver").connections.get(client.id)
    if type(handler) is ProxyConnectionHandler:
        handler.__class__ = RouterConnectionHandler


class RouterConnectionHandler(ProxyConnectionHandler):
    async def open_connection(self, command: commands.OpenConnection) -> None:
        """A peer that resets right after it has accepted leaves a socket without peer. mitmproxy 12.3 fails
        an assertion on that and tells nobody, so that what waits for the connection would wait for ever."""
        connection = command.connection
        try:
            await super().open_connection(command)
        except AssertionError:
            if connection.peername is not None or connection not in self.transports:
                raise
            if (writer := self.transports.pop(connection).writer) is not None:
                writer.close()
            connection.state, connection.error = ConnectionState.CLOSED, RESET
            connection.timestamp_tcp_setup = None
            data = server_hooks.ServerConnectionHookData(client=self.client, server=connection)
            await self.handle_hook(server_hooks.ServerConnectErrorHook(data))
            await self.server_event(events.OpenConnectionCompleted(command, RESET))
