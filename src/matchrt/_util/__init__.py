"""Small helpers that every room may use: atomic writes, digests, memory, module paths."""
