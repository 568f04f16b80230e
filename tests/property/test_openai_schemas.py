"""JSON Schemas of tools, and the regular expressions in them."""
