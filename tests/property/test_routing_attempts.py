"""The attempts of one request: their order, and what health learns of them."""
