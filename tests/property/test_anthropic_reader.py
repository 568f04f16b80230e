"""Answers read on their way to the client."""
