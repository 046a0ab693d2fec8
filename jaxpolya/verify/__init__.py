"""Verdicts: what a response answers, whether it is right, and the processes that judge. Never imports jax."""
