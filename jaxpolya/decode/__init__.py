"""Prefill, the decode window, sampling, and the engine that keeps lanes full."""
