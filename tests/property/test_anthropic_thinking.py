"""Thinking dropped from the history, with roles left valid."""
