"""Which trials there are, and which come next."""
