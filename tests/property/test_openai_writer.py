"""The one writer of Anthropic's events."""
