"""The messages of a conversation as chat completions."""
