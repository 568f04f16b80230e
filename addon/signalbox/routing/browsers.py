"""Decides which requests are refused because a web page sent them (the contract, section 3, "Browsers").

Any page that a person visits can make the browser post to a port of this machine. It can neither omit
`Origin` from such a request nor set `Sec-Fetch-Site` or `Host`. If the name of its site resolves to this
machine (DNS rebinding), its requests count as same-origin, but `Host` is that name. `Origin`: RFC 6454,
section 7. `Sec-Fetch-Site`: https://www.w3.org/TR/fetch-metadata/. Node's `fetch` sends `sec-fetch-mode`
alone and is no browser.
"""

from collections.abc import Collection
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import urlsplit

from signalbox.routing.credentials import Headers

_OWN_SITE = frozenset({"same-origin", "none"})
"""`none`: the person entered the URL."""
_PORTS = {"http": 80, "https": 443}


class HostPort(NamedTuple):
    """The name or address of a host in lower case, IPv6 without brackets, and the port if one is written."""

    host: str
    port: int | None


def is_loopback(address: str) -> bool:
    """Whether an IP address is loopback, IPv4 within IPv6 too. False for a name."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback


def host_refusal(host: str | None, hosts: Collection[str], address: str) -> str | None:
    """Why a request with this `Host` is refused; None if it is a name of this machine.

    Those are loopback, `hosts` (from `ui.hosts`), and `address`, the local address of the connection. A
    request without `Host` is accepted: no browser sends one.
    """
    if host is None or _is_known(place := _place(host), hosts, address):
        return None
    shown = place.host if place is not None else "that cannot be read"
    return f"Host {shown} is not this router's; ui.hosts in rules.yaml may name it"


def cross_site_refusal(
    headers: Headers, host: str | None, hosts: Collection[str], *, by_site: bool
) -> str | None:
    """Why a request is refused that a page of another site sent; None if the page's origin is `host` or one
    of `hosts`, or if no page sent it. `by_site`: `Sec-Fetch-Site` alone counts too."""
    own = _place(host or "")
    for name, value in headers:
        if name.lower() == "origin" and not _is_own(value, own, hosts):
            return "a page of another origin sent it"
        if by_site and name.lower() == "sec-fetch-site" and value.strip().lower() not in _OWN_SITE:
            return "a page of another site sent it"
    return None


def is_of_a_page(headers: Headers) -> bool:
    """Whether the headers show that a page of any origin sent the request."""
    return any(name.lower() in ("origin", "sec-fetch-site") for name, _ in headers)


def is_preflight(method: str, headers: Headers) -> bool:
    """https://fetch.spec.whatwg.org/#cors-preflight-request"""
    return method == "OPTIONS" and any(n.lower() == "access-control-request-method" for n, _ in headers)


def _is_known(place: HostPort | None, hosts: Collection[str], address: str) -> bool:
    if place is None:
        return False
    return place.host == "localhost" or is_loopback(place.host) or place.host in {*hosts, address.lower()}


def _is_own(origin: str, own: HostPort | None, hosts: Collection[str]) -> bool:
    """Whether an `Origin` is this router's: that of the request's `Host`, or one of `hosts` at the usual
    port, as before a server that ends TLS; at another port of these there may be other programs' pages.
    Sandboxed pages and files send `null`, which belongs to no site."""
    scheme, _, authority = origin.strip().partition("://")
    place = _place(authority)
    if scheme not in _PORTS or place is None:
        return False
    usual = _PORTS[scheme]
    if place.host in hosts and (place.port or usual) == usual:
        return True
    return own is not None and (place.host, place.port or usual) == (own.host, own.port or usual)


def _place(authority: str) -> HostPort | None:
    """Host and port; None if the text is not `host[:port]`."""
    try:
        parts = urlsplit(f"//{authority.strip()}")
        if not parts.hostname or parts.netloc != authority.strip() or "@" in authority:
            return None
        return HostPort(parts.hostname.rstrip("."), parts.port)
    except ValueError:
        return None
