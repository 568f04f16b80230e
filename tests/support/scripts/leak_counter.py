"""A second script for mitmdump that counts what the router keeps, where a request asks for it."""

import asyncio
import gc
import json

from mitmproxy import ctx, http

from signalbox.exchange import Exchange
from signalbox.proxy.layer import RouterLayer
from signalbox.proxy.pending_response import PendingResponse
from signalbox.proxy.stream import RoutedStream

COUNTED = (RouterLayer, RoutedStream, PendingResponse, Exchange)


def requestheaders(flow: http.HTTPFlow) -> None:
    """Answers `x-census` with the living objects, and the sizes of what the one client connection keeps."""
    if "x-census" in flow.request.headers:
        gc.collect()
        flow.response = http.Response.make(200, json.dumps(census(flow)))


def census(flow: http.HTTPFlow) -> dict[str, int]:
    living = gc.get_objects()
    counts = {kind.__name__: sum(type(one) is kind for one in living) for kind in COUNTED}
    layers = [one for one in living if type(one) is RouterLayer]
    layer = next(one for one in layers if one.context.client is flow.client_conn)
    handler = ctx.master.addons.get("proxyserver").connections[flow.client_conn.id]
    return counts | {
        "connections": len(layer.connections),
        "streams": len(layer.streams),
        "sources": len(layer.command_sources),
        "timers": len(handler.wakeup_timer),
        "tasks": len(asyncio.all_tasks()),
        "bytes": sum(len(one) for one in _bodies(living)),
    }


def _bodies(living: list[object]) -> list[bytes]:
    requests = [one for one in living if type(one) is http.Request]
    return list({id(one.data.content): one.data.content for one in requests if one.data.content}.values())
