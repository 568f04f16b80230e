"""Letting an upstream go, so that nothing of its answer can reach the stream any more.

Events carry a stream's number only, not their connection: closing alone or draining alone mixes bytes or
kills the next attempt (mitmproxy.md, 20 to 25).
"""

import asyncio
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress

from mitmproxy import ctx
from mitmproxy.connection import Client, Connection, Server
from mitmproxy.proxy import commands
from mitmproxy.proxy.layers.http import GetHttpConnection, Http1Client, Http2Client, HttpLayer

from signalbox.proxy.speaker import speaker

NOBODY = -1
"""A stream number that no stream has."""


def forget_stream(parent: HttpLayer, server: Connection, stream_id: int) -> None:
    """What still comes on this connection for the stream goes to nobody; another request may be sent."""
    upstream = speaker(parent, server)
    if isinstance(upstream, Http1Client) and upstream.stream_id == stream_id:
        upstream.stream_id = NOBODY
    elif isinstance(upstream, Http2Client):
        ours = upstream.our_stream_id.pop(stream_id, None)
        if ours is not None:
            upstream.their_stream_id[ours] = NOBODY
        upstream.stream_queue.pop(stream_id, None)


def is_shared(parent: HttpLayer, server: Connection) -> bool:
    """Whether other streams may be on the same connection."""
    return isinstance(speaker(parent, server), Http2Client)


def abort(client: Client, server: Connection) -> None:
    """Reset the connection now; closing it would first finish what is being sent."""
    transport = _transport(client, server)
    if transport is None:
        return
    raw = transport.get_extra_info("socket")
    if raw is not None:
        with suppress(OSError):  # it was reset from the other side
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()


def hold(client: Client, server: Connection) -> None:
    """Read nothing more from this upstream until `go_on`."""
    transport = _transport(client, server)
    if isinstance(transport, asyncio.Transport) and not transport.is_closing():
        transport.pause_reading()


def go_on(client: Client, server: Connection) -> None:
    transport = _transport(client, server)
    if isinstance(transport, asyncio.Transport) and not transport.is_closing():
        transport.resume_reading()


def unsent(client: Client, peer: Connection) -> int:
    """Bytes that wait to be taken by this peer, which may be the client itself."""
    transport = _transport(client, peer)
    return transport.get_write_buffer_size() if transport is not None else 0


def forget_failed(parent: HttpLayer, address: tuple[str, int]) -> None:
    """A connection that failed is not handed out again: the next request tries anew (mitmproxy.md, 24)."""
    failed = [c for c in parent.connections if isinstance(c, Server) and c.error and c.address == address]
    for server in failed:
        if never_opened(server):
            parent.connections.pop(server)
        server.error = None


def never_opened(server: Connection) -> bool:
    """Whether no end of this connection will be told, by which it would be forgotten."""
    return isinstance(server, Server) and server.timestamp_tcp_setup is None


def is_queued(parent: HttpLayer, command: object) -> bool:
    """Whether what this command waits for has not begun: mitmproxy opens a few connections at a time."""
    server = _awaited(parent, command)
    return server is not None and server.timestamp_start is None


def withdraw(parent: HttpLayer, command: GetHttpConnection) -> Iterator[commands.Command]:
    """Nobody waits for the command any more; where others do not wait for its connection, that is given up.

    A connection that has not begun ends without a word, so it is forgotten here.
    """
    del parent.command_sources[command]
    server = _awaited(parent, command)
    if server is None:
        return
    others = [other for other in parent.waiting_for_establishment[server] if other is not command]
    parent.waiting_for_establishment[server] = others
    if others:
        return
    del parent.waiting_for_establishment[server]
    if server.timestamp_start is None:
        del parent.connections[server]
        for source in [c for c in parent.command_sources if getattr(c, "connection", None) is server]:
            del parent.command_sources[source]
    yield commands.CloseConnection(server)


def _awaited(parent: HttpLayer, command: object) -> Connection | None:
    """Commands for the same address are equal; it is identity that counts."""
    waiting = parent.waiting_for_establishment.items()
    return next((server for server, those in waiting if any(one is command for one in those)), None)


def _transport(client: Client, peer: Connection) -> asyncio.WriteTransport | None:
    handler = ctx.master.addons.get("proxyserver").connections.get(client.id)
    found = handler.transports.get(peer) if handler is not None else None
    return found.writer.transport if found is not None and found.writer is not None else None
