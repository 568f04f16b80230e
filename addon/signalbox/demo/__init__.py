"""`just demo`: fake providers, the real router, and readable output."""
