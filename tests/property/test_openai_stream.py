"""The machine that makes Anthropic's events of steps."""
