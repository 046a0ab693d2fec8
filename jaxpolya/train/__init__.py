"""Losses, advantages, optimizer state, and the SFT and RL loops."""
