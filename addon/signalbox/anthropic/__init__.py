"""The Anthropic Messages protocol: body edits, SSE, usage, thinking, errors."""
