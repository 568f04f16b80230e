"""What runs beside requests, and what is remembered from one start to the next."""
