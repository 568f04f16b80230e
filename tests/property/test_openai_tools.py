"""Names of tools, and which of them is to be called."""
