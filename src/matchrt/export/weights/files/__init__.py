"""Checkpoint files as they are on the disk, read without torch and without running anything that they name."""
