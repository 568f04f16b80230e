"""What rules may ask about one request."""
