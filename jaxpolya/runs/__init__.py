"""Runs: arms, stages, and the one place that knows their order."""
