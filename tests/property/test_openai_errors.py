"""Errors of providers of chat completions, in Anthropic's words."""
