"""A second script for mitmdump that makes the router impatient: what takes 10 seconds or more takes less."""

from msgspec.structs import replace

from signalbox.config.rules import Timeout
from signalbox.proxy import stream
from signalbox.routing.exchange import Exchange

HELD = 0.5
STREAMED = 0.3
"""Of the provider "usual", which has the limits that are the default: the one for streamed answers."""

timeout = Exchange.timeout.fget


def hasty_timeout(exchange: Exchange) -> Timeout:
    limits = timeout(exchange)
    usual = exchange.provider is not None and exchange.provider.name == "usual"
    return replace(limits, first_byte=STREAMED) if usual else limits


def load(_: object) -> None:
    """By mitmproxy only: tests that read the constants above are not made impatient themselves."""
    stream.MAX_SILENCE = HELD
    Exchange.timeout = property(hasty_timeout)
