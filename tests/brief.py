"""A second script for mitmdump with which an upstream connection that nobody uses is kept only briefly."""

from mitmproxy import ctx

from signalbox.app import App

KEPT = 0.8


def load(_: object) -> None:
    App.of(ctx.master).keepalive_expiry = KEPT
