"""Health: circuits and cooldowns of providers, models and keys."""
