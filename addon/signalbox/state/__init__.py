"""State that outlives the process: learned facts, thinking provenance, quota files, logins."""
