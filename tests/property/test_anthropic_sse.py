"""Server-sent events cut out of a stream."""
