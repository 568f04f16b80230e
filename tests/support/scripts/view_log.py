"""A second script for mitmdump that prints where each flow goes whenever mitmweb would show it anew."""

from mitmproxy.addons.view import View
from mitmproxy.flow import Flow
from mitmproxy.http import HTTPFlow


def tell(flow: Flow) -> None:
    if isinstance(flow, HTTPFlow):
        status = flow.response.status_code if flow.response else None
        print(f"{flow.request.method} shown at {flow.request.port}, status {status}")


view = View()
view.sig_view_update.connect(tell)
addons = [view]
