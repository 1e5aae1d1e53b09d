"""Runs the commands of the documentation word for word: python -m tools.check_commands."""
