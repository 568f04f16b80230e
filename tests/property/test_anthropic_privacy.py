"""What providers other than Anthropic do not get: the billing block, and the ids in `metadata.user_id`."""
