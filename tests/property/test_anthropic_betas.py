"""Values of anthropic-beta."""
