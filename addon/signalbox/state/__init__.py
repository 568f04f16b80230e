"""What outlives a process: learned facts, thinking provenance, quota files, logins."""
