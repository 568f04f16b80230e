"""What `just run` and `just web` understand, and what they refuse before anything is started."""
