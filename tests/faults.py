"""A second script for mitmdump that breaks the router where a request says so, to see what becomes of it."""

from pathlib import Path

from mitmproxy import ctx

from signalbox.messages.reader import MessagesReader
from signalbox.proxy import dispatch
from signalbox.proxy.stream import RoutedStream
from signalbox.ui import health

BREAK_HEALTH = Path("break-health")
"""A file in the current folder: while it is there the page fails."""

prepare, feed, handle = dispatch.prepare, MessagesReader.pieces, RoutedStream.state_consume_request_body
tell = dispatch.log_dispatch


def broken_prepare(choice, facts, *args, **kwargs):
    if facts.headers.get("x-break") == "route":
        raise KeyError("sk-ant-fake-secret-in-a-fault")
    return prepare(choice, facts, *args, **kwargs)


def broken_tell(exchange, **kwargs):
    if exchange.facts and exchange.facts.headers.get("x-break") == "late":
        raise KeyError("sk-ant-fake-secret-in-a-fault")
    return tell(exchange, **kwargs)


def broken_page(page):
    def broken(*args):
        if BREAK_HEALTH.exists():
            raise KeyError("sk-ant-fake-secret-in-a-fault")
        return page(*args)

    return broken


def broken_feed(self, data):
    if b"BREAK-READER" in data:
        raise KeyError("sk-ant-fake-secret-in-a-fault")
    return feed(self, data)


def broken_handle(self, event):
    if self.flow.request.headers.get("x-break") == "layer":
        raise KeyError("sk-ant-fake-secret-in-a-fault")
    yield from handle(self, event)


def load(loader):
    dispatch.prepare = broken_prepare
    dispatch.log_dispatch = broken_tell
    health.page = broken_page(health.page)
    MessagesReader.pieces = broken_feed
    RoutedStream.state_consume_request_body = broken_handle
    assert ctx.options
