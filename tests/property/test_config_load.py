"""rules.yaml, `.env` and the environment into rules, or into errors with their lines."""
