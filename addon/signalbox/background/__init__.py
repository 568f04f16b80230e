"""Tasks that run beside requests: model lists, quota probes, the picker file."""
