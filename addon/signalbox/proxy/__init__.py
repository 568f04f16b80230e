"""mitmproxy's side: the HTTP layer, what a flow knows, the guard."""
