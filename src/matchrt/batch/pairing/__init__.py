"""Which pairs of a folder are worth matching."""
