"""What the user wrote: schema, loading with line numbers, secrets, live reload."""
