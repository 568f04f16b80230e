"""Fields dropped wherever they stand, with only their bytes."""
