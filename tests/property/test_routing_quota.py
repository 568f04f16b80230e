"""Marks, hysteresis and spent windows: which accounts are skipped, and when they are used again."""
