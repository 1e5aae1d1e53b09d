"""Checkpoints: reading them, accounting for every tensor, and saying what is wrong."""
