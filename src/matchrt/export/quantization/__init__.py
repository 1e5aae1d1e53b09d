"""Quantization to INT8 and FP8: which operators get Q/DQ pairs, with which ranges, and how the pairs are written."""
