"""Situations of providers, played through rules against fakes on this machine; `signalbox test`."""
