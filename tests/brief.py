"""A second script for mitmdump with which an upstream connection that nobody uses is kept only briefly."""

from signalbox.proxy import kept

KEPT = 0.8

kept.KEPT = KEPT
