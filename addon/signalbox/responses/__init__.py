"""Translates OpenAI Responses."""
