"""The proxies through which providers are asked, as the environment names them.

`HTTPS_PROXY` is for URLs that begin with https://, `HTTP_PROXY` for the others, and `NO_PROXY` lists the
hosts that are asked directly. All three are also read in lower case, which wins, as in curl.
"""

import ipaddress
import re
from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

from .fields import Proxy, Url, parse_proxy
from .typespec import Reads

type ProxyText = Annotated[
    Proxy | Literal["none"],
    Reads(
        "none, or a proxy such as http://proxy.example.com:3128",
        parse_proxy,
        {"type": "string", "pattern": r"^(none|http://[!-~]+)$|\$\{"},
        shown=False,
    ),
]

VARIABLES = {"https": "HTTPS_PROXY", "http": "HTTP_PROXY"}
"""By scheme of the URL that is asked."""
DIRECT = "NO_PROXY"


class Outbound(msgspec.Struct, frozen=True):
    """The environment's proxies, by scheme of the URL that is asked."""

    proxies: Mapping[str, Proxy] = {}
    direct: tuple[str, ...] = ()
    """The entries of NO_PROXY, in lower case."""
    faults: tuple[str, ...] = ()
    """Why variables of the environment are not used; one line each, without their values."""

    def to(self, url: Url) -> Proxy | None:
        """The proxy through which this URL is asked; None if it is asked directly."""
        proxy = self.proxies.get(url.scheme)
        is_direct = proxy is None or any(names(entry, url.host, url.port) for entry in self.direct)
        return None if is_direct else proxy


def from_environment(variables: Mapping[str, str]) -> Outbound:
    proxies: dict[str, Proxy] = {}
    faults = []
    for scheme, name in VARIABLES.items():
        written = _value(variables, name)
        if not written:
            continue
        try:
            proxy = parse_proxy(written if "://" in written else f"http://{written}")
        except ValueError as fault:
            faults.append(f"{name} is not used: {fault or 'it is no proxy'}")
            continue
        if isinstance(proxy, Proxy):
            proxies[scheme] = proxy
    return Outbound(proxies, direct_hosts(_value(variables, DIRECT)), tuple(faults))


def direct_hosts(written: str) -> tuple[str, ...]:
    """The entries of a NO_PROXY."""
    return tuple(entry.lower() for entry in re.split(r"[,\s]+", written) if entry)


def names(entry: str, host: str, port: int) -> bool:
    """Whether an entry of NO_PROXY is about this host: `*`, a name (which stands for all names below it too,
    with or without a dot before it), an address, a network such as 10.0.0.0/8; each but the last two may end
    in a port."""
    host = host.lower().rstrip(".")
    if entry == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        pass
    name, _, only = entry.rpartition(":") if re.search(r"[^:]:\d+$", entry) else (entry, "", "")
    if only and int(only) != port:
        return False
    name = name.strip("[]").removeprefix("*").strip(".")
    return bool(name) and (host == name or host.endswith(f".{name}"))


def _value(variables: Mapping[str, str], name: str) -> str:
    return variables.get(name.lower()) or variables.get(name, "")
