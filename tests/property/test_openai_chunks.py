"""Chunks of chat completions as steps; the golden files show the spellings of each provider."""
