"""The TLS context of the router's own requests (model lists, quota probes)."""

import ssl
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import certifi

if TYPE_CHECKING:
    from mitmproxy.options import Options


def client_ssl_context(options: "Options") -> ssl.SSLContext:
    """Trusts the certificates that mitmproxy's options trust for upstreams."""
    ca, folder = options.ssl_verify_upstream_trusted_ca, options.ssl_verify_upstream_trusted_confdir
    return _client_ssl_context(options.ssl_insecure, ca, folder)


@cache
def _client_ssl_context(insecure: bool, ca: str | None, folder: str | None) -> ssl.SSLContext:
    if not (insecure or ca or folder):
        return default_ssl_context()
    files = [str(Path(path).expanduser()) if path else None for path in (ca, folder)]
    context = ssl.create_default_context(cafile=files[0], capath=files[1])
    # As in mitmproxy: the CAs of many companies do not pass strict X.509 checks.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if insecure:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@cache
def default_ssl_context() -> ssl.SSLContext:
    """Trusts the certificate authorities of certifi. Reading them takes a while."""
    return ssl.create_default_context(cafile=certifi.where())
