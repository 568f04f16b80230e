"""Upstream connections that are kept for the next request: how long they have been silent.

What lies between may drop a silent connection without a word to either end; a request sent on it then gets
no answer at all.
"""

import time
from weakref import WeakKeyDictionary

from mitmproxy.connection import Connection, Server

KEPT = 50.0
"""Seconds of silence after which a connection is not used again. Less than where the usual front ends of
providers begin: 60 s of AWS's load balancers
(https://docs.aws.amazon.com/elasticloadbalancing/latest/application/edit-load-balancer-attributes.html),
75 s of nginx (https://nginx.org/en/docs/http/ngx_http_core_module.html#keepalive_timeout)."""

_heard: WeakKeyDictionary[Connection, float] = WeakKeyDictionary()
"""When something came last, by the wall clock, which goes on while a machine sleeps."""


def made(connection: Connection) -> None:
    """It can be used from now on. Through another proxy it is that one's connection on which bytes come."""
    if isinstance(connection, Server) and connection.via is None:
        _heard[connection] = time.time()


def heard(connection: Connection) -> None:
    """Something came on it."""
    if connection in _heard:
        _heard[connection] = time.time()


def is_stale(connection: Connection) -> bool:
    return connection in _heard and time.time() - _heard[connection] >= KEPT
