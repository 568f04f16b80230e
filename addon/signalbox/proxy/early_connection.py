"""Opens the connection to the provider that is likely to be asked while the body of a request still arrives.

Which provider is asked is known once the body is in. Over a real network TCP and TLS take 60 to 150 ms more,
on each new connection of a client, and after each pause in which the kept connection has become too old. A
session mostly asks the provider that it asked before: where the head of a request has come and its body has
not, the connection to that one is opened. Nothing is sent on it before the request is routed there.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

from mitmproxy import http
from mitmproxy.net.server_spec import ServerSpec
from mitmproxy.proxy.layers.http import GetHttpConnection

from signalbox.config.fields import Proxy
from signalbox.config.rules import Rules
from signalbox.routing.facts import AGENT_HEADER, SESSION_HEADER, ConversationId

MOST = 1000
"""Conversations that are remembered."""


class Address(NamedTuple):
    """Where a provider is."""

    host: str
    port: int
    scheme: str
    proxy: Proxy | None = None
    """Through which it is asked."""


@dataclass(unsafe_hash=True)
class OpenEarly(GetHttpConnection):
    """Open a connection that no stream waits for yet. Never answered."""

    blocking = False

    def __init__(self, to: Address, via: ServerSpec | None) -> None:
        super().__init__((to.host, to.port), to.scheme == "https", via, "tcp")


NO_SESSION: ConversationId = ("", "")


class LikelyProviders:
    """Where the last request of each conversation went, by listener."""

    def __init__(self, most: int = MOST) -> None:
        self._last: OrderedDict[tuple[int, ConversationId], Address] = OrderedDict()
        self._most = most

    def note(self, port: int, conversation: ConversationId | None, to: Address) -> None:
        """A request on the listener `port` has a connection there."""
        for key in ((port, conversation or NO_SESSION), (port, NO_SESSION)):
            self._last[key] = to
            self._last.move_to_end(key)
        while len(self._last) > self._most:
            self._last.popitem(last=False)

    def of(self, port: int, request: http.Request, rules: Rules) -> Address | None:
        """Where the last request of the same conversation went, or else the last one on this listener; None
        where that is no provider's address any more. Of the request only the head is needed."""
        headers = request.headers
        conversation = (headers.get(SESSION_HEADER, ""), headers.get(AGENT_HEADER, ""))
        to = self._last.get((port, conversation)) or self._last.get((port, NO_SESSION))
        of_providers = ((p.url, p.proxy) for p in rules.providers.values())
        return to if any(to == (url.host, url.port, url.scheme, by) for url, by in of_providers) else None


def is_incomplete(request: http.Request, received: int) -> bool:
    """Whether more of the body is known to come."""
    announced = request.headers.get("content-length", "")
    return announced.isdecimal() and int(announced) > received
