"""One target is sent what it understands, and nothing of what another one was."""
