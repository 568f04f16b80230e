"""The tally of one answer."""
