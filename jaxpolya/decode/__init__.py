"""Prefill, bursts of steps, sampling, and the engine that keeps lanes full."""
