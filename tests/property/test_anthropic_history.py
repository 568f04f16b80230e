"""A history made valid for Anthropic itself."""
