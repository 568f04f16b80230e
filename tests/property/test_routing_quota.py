"""Marks, hysteresis and spent windows: who is passed over, and when it comes back."""
