"""The way to a provider through an HTTP proxy: mitmproxy's tunnel, with credentials and reasons.

Each connection is a tunnel of its own, made by CONNECT (RFC 9110, section 9.3.6), also where the provider is
asked without TLS: so nothing of a request changes, and what the proxy says is never taken for the provider's
answer. mitmproxy's layers then have two connections: that of the provider, in which nothing passes by itself,
and its `carrier`, the one to the proxy.
"""

from typing import Any

from h11._receivebuffer import ReceiveBuffer
from mitmproxy.connection import Connection
from mitmproxy.net.http import http1
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import HttpLayer
from mitmproxy.proxy.layers.http._upstream_proxy import HttpUpstreamProxy
from mitmproxy.proxy.tunnel import TunnelLayer

from signalbox.config.fields import Proxy
from signalbox.errors import is_exhausted, short_reason
from signalbox.ports import authority
from signalbox.proxy.http1 import HEAD_LIMIT

LOOP = "Request destination unknown"
"""What mitmproxy says where a connection would lead to one of its own listeners."""
MOST_CONNECTIONS = 64
"""Open connections of one client to one proxy. mitmproxy's five at a time for each address would be for all
providers behind it together, and those that are kept for the next request count."""


class Via(tuple[Any, ...]):
    """A proxy as mitmproxy has it in `Server.via`: `("http", (host, port))`. With other credentials it is
    another one, so that no connection is used for both."""

    proxy: Proxy

    def __new__(cls, proxy: Proxy) -> "Via":
        self = super().__new__(cls, ("http", (proxy.host, proxy.port)))
        self.proxy = proxy
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Via) and self.proxy == other.proxy

    def __hash__(self) -> int:
        return hash(self.proxy)


class ProxyTunnel(HttpUpstreamProxy):
    """Differs from mitmproxy's by credentials, a bound on the head of the proxy's answer, and its reasons."""

    @property
    def proxy(self) -> Proxy:
        assert isinstance(self.conn.via, Via)
        return self.conn.via.proxy

    def start_handshake(self) -> layer.CommandGenerator[None]:
        assert self.conn.address is not None
        host, port = self.conn.address[:2]
        destination = authority(host, port)
        lines = [f"CONNECT {destination} HTTP/1.1", f"Host: {destination}"]
        if self.proxy.authorization is not None:
            lines.append(f"Proxy-Authorization: {self.proxy.authorization}")
        head = "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")
        yield commands.SendData(self.tunnel_connection, head)

    def receive_handshake_data(self, data: bytes) -> layer.CommandGenerator[tuple[bool, str | None]]:
        yield from ()
        self.buf += data
        head = self.buf.maybe_extract_lines()
        if head is None:
            return False, "answered with no HTTP" if len(self.buf) > HEAD_LIMIT else None
        try:
            status = http1.read_response_head([bytes(line) for line in head]).status_code
        except (ValueError, IndexError):
            return False, "answered with no HTTP"
        if status == 407:
            given = self.proxy.authorization is not None
            return False, f"asks for {'other credentials' if given else 'credentials'} (407)"
        if not 200 <= status < 300:
            return False, f"refused to connect ({status})"
        return True, None

    def _handshake_finished(self, err: str | None) -> layer.CommandGenerator[None]:
        yield from super()._handshake_finished(err)
        if err is None and (early := bytes(self.buf)):  # the server spoke first
            self.buf = ReceiveBuffer()
            yield from self.receive_data(early)

    def event_to_child(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, events.OpenConnectionCompleted) and event.command.connection is self.conn:
            if event.reply is not None and not is_exhausted(event.reply):
                event.reply = f"the proxy {self.proxy.address} {self._reason(event.reply)}"
            self.conn.error = event.reply
        yield from super().event_to_child(event)

    def _reason(self, error: str) -> str:
        if LOOP in error:
            return "is this router itself"
        if self.tunnel_connection.timestamp_tcp_setup is None:
            return f"could not be reached: {short_reason(error)}"
        return "closed the connection" if error == "connection closed" else error


def adopt(tunnel: layer.Layer | None) -> None:
    """Replace the class of a tunnel through a proxy of ours, which has sent nothing yet."""
    if type(tunnel) is HttpUpstreamProxy and isinstance(tunnel.conn.via, Via):
        tunnel.__class__ = ProxyTunnel
        tunnel.tunnel_connection.via = (
            tunnel.conn.via
        )  # so that it serves no request to the proxy's own address


def through(proxy: Proxy, context: Context, child: layer.Layer) -> layer.Layer:
    """A layer that has `child` reach the context's server, which is not connected yet, through a proxy."""
    context.server.via = Via(proxy)
    stack = ProxyTunnel.make(context, send_connect=True)
    stack /= child
    return stack[0]


def carrier(parent: HttpLayer, connection: Connection) -> Connection:
    """The connection on which the bytes of this one pass: that to its proxy, if it has one."""
    outermost = parent.connections.get(connection)
    return outermost.tunnel_connection if isinstance(outermost, TunnelLayer) else connection


def is_carrier(parent: HttpLayer, connection: Connection) -> bool:
    """Whether this is only the connection to the proxy of another one."""
    outermost = parent.connections.get(connection)
    return (
        isinstance(outermost, TunnelLayer)
        and outermost.conn is not connection
        and (outermost.tunnel_connection is connection)
    )
