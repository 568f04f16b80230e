"""Who speaks HTTP on an upstream's connection: the last of the layers that mitmproxy has put on it."""

from mitmproxy.connection import Connection
from mitmproxy.proxy import layer
from mitmproxy.proxy.layers.http import Http1Client, Http2Client, HttpLayer


def speaker(parent: HttpLayer, server: Connection) -> Http1Client | Http2Client | None:
    """None where nobody does yet, or no more."""
    found: layer.Layer | None = parent.connections.get(server)
    while found is not None and not isinstance(found, Http1Client | Http2Client):
        found = getattr(found, "child_layer", None)
    return found
