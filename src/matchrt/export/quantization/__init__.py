"""INT8 and FP8 are Q/DQ pairs in the graph: which operators get them, from which numbers, and how they are written."""
