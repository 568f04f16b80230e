"""The HTTP client of the router's own requests to providers (model lists, quota probes)."""

import asyncio
import ssl
import sys
from importlib import import_module
from typing import TYPE_CHECKING

from signalbox.config.rules import Provider

if TYPE_CHECKING:
    import httpx


async def http_client(provider: Provider, tls: ssl.SSLContext, limit: float) -> "httpx.AsyncClient":
    """A client for one provider, by way of its proxy. It stores cookies, which do not depend on the port, so
    that each provider, and each account, has a client of its own. `limit` is in seconds."""
    if "httpx" not in sys.modules:
        await asyncio.to_thread(import_module, "httpx")  # slow: neither at the start nor on the event loop
    import httpx

    proxy = None
    if (through := provider.proxy) is not None:
        credentials = (through.user, through.password) if through.authorization else None
        proxy = httpx.Proxy(f"http://{through.address}", auth=credentials)
    return httpx.AsyncClient(verify=tls, timeout=limit, follow_redirects=False, trust_env=False, proxy=proxy)
