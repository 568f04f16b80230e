"""The user's configuration: schema, loading with line numbers, secrets, live reload."""
