"""YAML into nodes with lines."""
