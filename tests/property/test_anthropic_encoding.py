"""Content encodings, whole and as they arrive."""
