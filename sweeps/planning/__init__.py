"""What a sweep would do, what it costs, what is spent."""
