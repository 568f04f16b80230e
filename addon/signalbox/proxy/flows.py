"""What a flow knows beside its own fields: kept as long as the flow, never written to a flow file."""

from weakref import WeakKeyDictionary

from mitmproxy.flow import Flow

from signalbox.routing.exchange import Exchange

exchanges: WeakKeyDictionary[Flow, Exchange] = WeakKeyDictionary()
