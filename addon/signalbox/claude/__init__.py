"""Runs Claude Code with the router as a part of its life: `signalbox claude` and `signalbox env`."""
