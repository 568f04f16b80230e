"""A second script for mitmdump with which an upstream connection that nobody uses is kept only briefly."""

from signalbox.proxy import upstream

KEPT = 0.8


def load(_: object) -> None:
    upstream.KEEPALIVE_EXPIRY = KEPT
