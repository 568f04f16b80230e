"""Whose certificates requests of our own trust: those that mitmproxy trusts."""

import ssl
from functools import cache
from pathlib import Path

from mitmproxy import ctx

from signalbox.background import model_list


def trusted() -> ssl.SSLContext:
    """Whom mitmproxy trusts as upstreams, by its options."""
    options = ctx.options
    ca, folder = options.ssl_verify_upstream_trusted_ca, options.ssl_verify_upstream_trusted_confdir
    return _trusted(options.ssl_insecure, ca, folder)


@cache
def _trusted(insecure: bool, ca: str | None, folder: str | None) -> ssl.SSLContext:
    if not (insecure or ca or folder):
        return model_list.client_ssl_context()
    files = [str(Path(path).expanduser()) if path else None for path in (ca, folder)]
    context = ssl.create_default_context(cafile=files[0], capath=files[1])
    context.verify_flags &= (
        ~ssl.VERIFY_X509_STRICT
    )  # which mitmproxy does not ask for, nor many a firm's CA pass
    if insecure:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
