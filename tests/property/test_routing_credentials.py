"""Which headers may leave for whom."""
