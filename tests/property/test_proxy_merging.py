"""Chunks that came in one read leave as one piece."""
