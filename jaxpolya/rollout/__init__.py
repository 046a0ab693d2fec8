"""Asking a model and judging what it says, and the rounds of rollouts that training takes from it."""
