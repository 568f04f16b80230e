"""Model lists: read whatever providers give, and merged into one of Anthropic's shape."""
