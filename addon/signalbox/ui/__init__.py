"""Pages that the router answers itself: health and the model list."""
