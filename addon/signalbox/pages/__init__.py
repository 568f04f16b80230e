"""What people look at: health."""
