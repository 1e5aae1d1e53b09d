"""From a request to a stored engine: export, convert, gate, store."""
