"""A second script for mitmdump that makes the router impatient: what takes 10 seconds takes less."""

from signalbox.proxy import answering

HELD = 0.4

answering.HELD = HELD
