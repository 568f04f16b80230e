"""A second script for mitmdump that breaks the router where a request says so, to see what becomes of it."""

from mitmproxy import ctx

from signalbox.gateway import departure
from signalbox.messages.reader import Reader
from signalbox.proxy.layers import RouterStream

prepare, feed, handle = departure.prepare, Reader.feed, RouterStream.state_consume_request_body


def broken_prepare(choice, facts, *args, **kwargs):
    if facts.headers.get("x-break") == "route":
        raise KeyError("sk-ant-fake-secret-in-a-fault")
    return prepare(choice, facts, *args, **kwargs)


def broken_feed(self, data):
    if b"BREAK-READER" in data:
        raise KeyError("sk-ant-fake-secret-in-a-fault")
    return feed(self, data)


def broken_handle(self, event):
    if self.flow.request.headers.get("x-break") == "layer":
        raise KeyError("sk-ant-fake-secret-in-a-fault")
    yield from handle(self, event)


def load(loader):
    departure.prepare = broken_prepare
    Reader.feed = broken_feed
    RouterStream.state_consume_request_body = broken_handle
    assert ctx.options
