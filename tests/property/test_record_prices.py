"""The price table, and what tokens cost by it."""
