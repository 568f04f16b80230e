"""Signalbox: routes Anthropic Messages requests to the provider that rules.yaml names."""

__version__ = "0.1.0"
