"""The HTTP client of the router's own requests to providers (model lists, quota probes)."""

import ssl

import httpx

from signalbox.config.rules import Provider


def http_client(provider: Provider, tls: ssl.SSLContext, timeout: float) -> httpx.AsyncClient:
    """A client for one provider, by way of its proxy. It stores cookies, which do not depend on the port, so
    that each provider, and each account, has a client of its own. `timeout` is in seconds."""
    proxy = None
    if (through := provider.proxy) is not None:
        credentials = (through.user, through.password) if through.authorization else None
        proxy = httpx.Proxy(f"http://{through.address}", auth=credentials)
    return httpx.AsyncClient(
        verify=tls, timeout=timeout, follow_redirects=False, trust_env=False, proxy=proxy
    )
