"""Requests: looked at once, changed by splices, all other bytes as they came."""
