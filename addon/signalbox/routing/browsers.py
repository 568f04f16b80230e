"""Which requests are refused because a web page sent them, or may have (the contract, section 3, "Browsers").

Any page that a person visits can make the browser post to a port of this machine. It cannot leave out
`Origin` where it posts, nor set `Sec-Fetch-Site` or `Host`; where its own name leads to this machine (DNS
rebinding) its requests are of one origin, but `Host` is that name.
`Origin`: RFC 6454, section 7. `Sec-Fetch-Site`: https://www.w3.org/TR/fetch-metadata/. Node's `fetch` sends
`sec-fetch-mode` alone and is no browser.
"""

from collections.abc import Collection
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import urlsplit

from signalbox.routing.credentials import Headers

_OWN_SITE = frozenset({"same-origin", "none"})
"""`none`: a person asked for it, by the address bar."""
_PORTS = {"http": 80, "https": 443}


class Place(NamedTuple):
    """Name or address of a host in lower case, IPv6 without brackets, and the port where it is written."""

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
    """Why a request with this `Host` is refused; None where it is one of this machine's names.

    These are loopback, `hosts` (as `ui.hosts` gives them), and `address`, at which the connection came in.
    Without any `Host` no browser asks.
    """
    if host is None or _is_known(place := _place(host), hosts, address):
        return None
    shown = place.host if place is not None else "that cannot be read"
    return f"Host {shown} is not this router's; ui.hosts in rules.yaml may name it"


def cross_site_refusal(
    headers: Headers, host: str | None, hosts: Collection[str], *, by_site: bool
) -> str | None:
    """Why a request is refused that a page sent; None where that is of the same origin as `host`, or one of
    `hosts`, or where no page is told of. `by_site`: also where only `Sec-Fetch-Site` tells of one."""
    own = _place(host or "")
    for name, value in headers:
        if name.lower() == "origin" and not _is_own(value, own, hosts):
            return "a page of another origin sent it"
        if by_site and name.lower() == "sec-fetch-site" and value.strip().lower() not in _OWN_SITE:
            return "a page of another site sent it"
    return None


def is_of_a_page(headers: Headers) -> bool:
    """Whether the headers say that a page of whatever origin sent this."""
    return any(name.lower() in ("origin", "sec-fetch-site") for name, _ in headers)


def is_preflight(method: str, headers: Headers) -> bool:
    """https://fetch.spec.whatwg.org/#cors-preflight-request"""
    return method == "OPTIONS" and any(n.lower() == "access-control-request-method" for n, _ in headers)


def _is_known(place: Place | None, hosts: Collection[str], address: str) -> bool:
    if place is None:
        return False
    return place.host == "localhost" or is_loopback(place.host) or place.host in {*hosts, address.lower()}


def _is_own(origin: str, own: Place | None, hosts: Collection[str]) -> bool:
    """Sandboxed pages and files send `Origin: null`, which belongs to no site."""
    scheme, _, authority = origin.strip().partition("://")
    place = _place(authority)
    if scheme not in _PORTS or place is None:
        return False
    if place.host in hosts:
        return True
    usual = _PORTS[scheme]
    return own is not None and (place.host, place.port or usual) == (own.host, own.port or usual)


def _place(authority: str) -> Place | None:
    """None where this is no `host[:port]`."""
    try:
        parts = urlsplit(f"//{authority.strip()}")
        if not parts.hostname or parts.netloc != authority.strip() or "@" in authority:
            return None
        return Place(parts.hostname.rstrip("."), parts.port)
    except ValueError:
        return None
