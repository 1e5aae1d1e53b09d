"""What works on this machine and what does not, with the reason and the command that helps."""
