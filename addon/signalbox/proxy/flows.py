"""What a flow knows beside its own fields: kept as long as the flow, never written to a flow file."""

from weakref import WeakKeyDictionary

from mitmproxy import http
from mitmproxy.flow import Flow

from signalbox.exchange import Exchange

exchanges: WeakKeyDictionary[Flow, Exchange] = WeakKeyDictionary()

hosts: WeakKeyDictionary[http.Request, str] = WeakKeyDictionary()
"""The client's own `Host`, or `:authority`; mitmproxy replaces it by the reverse upstream's before any hook
(mitmproxy.md, 16)."""
