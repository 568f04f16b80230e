"""A second script for mitmdump that makes the router impatient: it sends an early head after HELD seconds."""

from mitmproxy import ctx

from signalbox.app import App

HELD = 0.5


def load(_: object) -> None:
    App.of(ctx.master).max_silence = HELD
