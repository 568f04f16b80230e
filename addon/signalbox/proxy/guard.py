"""What answers while no router is loaded.

mitmproxy takes `router.py` away when an edit of it is broken or the file is missing for a moment; requests
would then go unrouted to the reverse upstream (mitmproxy.md, 6). The guard is registered once, outside the
script, and stays.
"""

from mitmproxy import http
from mitmproxy.proxy.mode_specs import ReverseMode

from signalbox.proxy.answers import error

PATHS = ("/v1/messages", "/v1/messages/count_tokens", "/v1/models")


class Guard:
    name = "signalbox-guard"

    def __init__(self) -> None:
        self.on_duty = False

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        if self.on_duty and (
            isinstance(flow.client_conn.proxy_mode, ReverseMode)
            or flow.request.path.partition("?")[0] in PATHS
        ):
            flow.request.stream = False
            flow.response = error(
                503, "The router is being loaded again, or router.py is broken: see its log."
            )
