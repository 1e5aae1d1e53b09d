"""Finds out what works on this machine. For what does not work, it gives the reason and a command that helps."""
