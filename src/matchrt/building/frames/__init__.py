"""Frames in an engine's graph: colours, resizes and padding as nodes before the network, and points back behind it."""
