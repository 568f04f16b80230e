"""A second script for mitmdump that makes the router impatient: what takes 10 seconds takes less."""

from signalbox.proxy import failover

HELD = 0.4

failover.HELD = HELD
