"""Lint of rules.yaml: warnings of every load, and what only check looks for."""
