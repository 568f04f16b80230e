"""Errors in Anthropic's shape, and those of others understood."""
