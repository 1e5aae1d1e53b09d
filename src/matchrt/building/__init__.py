"""Turns a request into a stored engine: export, convert, check with the gate, store."""
