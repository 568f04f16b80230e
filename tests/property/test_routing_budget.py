"""Days, weeks and months of a budget, and whether it is spent."""
