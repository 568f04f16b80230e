"""A second script for mitmdump that makes the router impatient: it sends an early head after HELD seconds."""

from signalbox.proxy import stream

HELD = 0.5


def load(_: object) -> None:
    """By mitmproxy only: tests that read the constants above are not made impatient themselves."""
    stream.MAX_SILENCE = HELD
