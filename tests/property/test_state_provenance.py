"""Who issued which block, from one start of the router to the next."""
