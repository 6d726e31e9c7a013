"""What may vary: search spaces, and what to try next."""
