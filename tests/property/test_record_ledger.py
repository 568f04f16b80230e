"""The ledger: what it holds, what it bears, what it forgets, and what it adds up."""
