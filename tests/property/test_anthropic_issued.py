"""What identifies a thinking block, and how it is read from an answer."""
