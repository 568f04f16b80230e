"""`just demo`: the newcomer's first minute. Fake providers, the real router, a readable output."""
