"""What happened: console lines and the request log."""
