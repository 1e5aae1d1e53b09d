"""Reasons to quantize products or not that several families share. They were measured: docs/quantization.md."""

from __future__ import annotations

STEM = "reads the image itself: symmetric int8 would lose one of its 8 bits, to save 1 % of the arithmetic"
CONVOLUTION = "most of the arithmetic; features after a Relu or a sum, all of one scale"
LINEAR = "features times weights; the operators around it stay in floating point"
SIMILARITY = (
    "an exponent: the temperature multiplies its rounding error by 10, and near-equal scores must keep their order"
)
MASKS = "products of zeros and ones without weights, which say which part of an image is padding"
COORDINATES = "the sub-pixel result itself"
# Operators that are not products, and why they stay in floating point: (name, reason).
FLOAT_PARTS = (
    ("attention", "products of two activations: the errors of both multiply, and a sum over all cells follows"),
    ("softmax and exponentials", "differences of 0.01 matter, but 8 bits end at steps of 1/255 of the largest value"),
    ("norms", "means and variances over channels with outliers that 8 bits cannot hold"),
    ("positions and cell numbers", "integers in the thousands"),
)
