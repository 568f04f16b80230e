"""Letting an upstream go, so that nothing of its answer can reach the stream any more.

Events carry a stream's number only, not their connection: closing alone or draining alone mixes bytes or
kills the next attempt (mitmproxy.md, 20 to 25).
"""

import socket
import struct
from contextlib import suppress

from mitmproxy import ctx
from mitmproxy.connection import Client, Connection, Server
from mitmproxy.proxy import layer
from mitmproxy.proxy.layers.http import Http1Client, Http2Client, HttpLayer

NOBODY = -1
"""A stream number that no stream has."""


def forget_stream(parent: HttpLayer, server: Connection, stream_id: int) -> None:
    """What still comes on this connection for the stream goes to nobody; another request may be sent."""
    speaker = _speaker(parent, server)
    if isinstance(speaker, Http1Client) and speaker.stream_id == stream_id:
        speaker.stream_id = NOBODY
    elif isinstance(speaker, Http2Client):
        ours = speaker.our_stream_id.pop(stream_id, None)
        if ours is not None:
            speaker.their_stream_id[ours] = NOBODY
        speaker.stream_queue.pop(stream_id, None)


def gone(parent: HttpLayer) -> set[Connection]:
    """Upstream connections let go, for the layer to forget when they have closed (mitmproxy.md, 24)."""
    found: set[Connection] = parent.__dict__.setdefault("_gone", set())
    return found


def is_shared(parent: HttpLayer, server: Connection) -> bool:
    """Whether other streams may be on the same connection."""
    return isinstance(_speaker(parent, server), Http2Client)


def abort(client: Client, server: Connection) -> None:
    """Reset the connection now; closing it would first finish what is being sent."""
    handler = ctx.master.addons.get("proxyserver").connections.get(client.id)
    transport = handler.transports.get(server) if handler is not None else None
    if transport is None or transport.writer is None:
        return
    raw = transport.writer.get_extra_info("socket")
    if raw is not None:
        with suppress(OSError):  # it was reset from the other side
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.writer.transport.abort()


def writes_to(client: Client) -> bool:
    """Whether bytes wait to be taken by the client, so that a silent upstream may be the client's doing."""
    handler = ctx.master.addons.get("proxyserver").connections.get(client.id)
    transport = handler.transports.get(client) if handler is not None else None
    if transport is None or transport.writer is None:
        return False
    return bool(transport.writer.transport.get_write_buffer_size())


def forget_failed(parent: HttpLayer, address: tuple[str, int]) -> None:
    """A connection that failed is not handed out again: the next request tries anew (mitmproxy.md, 24)."""
    failed = [c for c in parent.connections if isinstance(c, Server) and c.error and c.address == address]
    for server in failed:
        if server.timestamp_tcp_setup is None:  # else it is forgotten when it has closed
            parent.connections.pop(server)
        server.error = None


def pending(parent: HttpLayer, command: object) -> list[Connection]:
    """The connections that are being set up for this command alone."""
    return [c for c, waiting in parent.waiting_for_establishment.items() if waiting == [command]]


def _speaker(parent: HttpLayer, server: Connection) -> layer.Layer | None:
    found = parent.connections.get(server)
    while found is not None and not isinstance(found, Http1Client | Http2Client):
        found = getattr(found, "child_layer", None)
    return found
