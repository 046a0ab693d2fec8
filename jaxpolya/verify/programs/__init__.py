"""What is known of a question about programs: where a response's program stands, its tests, their arguments and what they print."""
