"""Answers of chat completions as Anthropic's, whole and in pieces, as clients read them."""
