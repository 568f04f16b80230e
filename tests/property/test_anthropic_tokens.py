"""The estimate of a request's input tokens."""
