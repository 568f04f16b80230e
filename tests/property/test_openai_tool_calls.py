"""Tool calls in progress: fragments, arguments and halves of characters."""
