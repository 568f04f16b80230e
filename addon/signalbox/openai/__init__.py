"""Chat completions: translates requests to this protocol, and its answers and errors back."""
