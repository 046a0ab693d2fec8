"""pass@k and its intervals."""
