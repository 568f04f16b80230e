"""A Messages body as it is read for translation, and the text in its blocks."""
