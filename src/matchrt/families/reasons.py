"""Why products are quantised or not, where several families have the same reason. Measured: docs/quantization.md."""

from __future__ import annotations

STEM = "reads the image itself: symmetric int8 would take a bit of its 8, for 1 % of the arithmetic"
CONVOLUTION = "most of the arithmetic; features behind a Relu or a sum, of one scale"
LINEAR = "features times weights; what surrounds it stays in floating point"
SIMILARITY = "an exponent: the temperature multiplies its rounding by 10, and near-equal scores must keep their order"
MASKS = "products of zeros and ones, of no weights; where the engine is told which part of an image is padding"
COORDINATES = "the sub-pixel result itself"
# What is no product, and why it stays in floating point: name and reason.
FLOAT_PARTS = (
    ("attention", "products of two activations: errors of both meet, and a sum over all cells follows"),
    ("softmax and exponentials", "differences of a hundredth decide, and 8 bits end at 1/255 of the largest value"),
    ("norms", "means and variances over channels whose outliers 8 bits cannot hold"),
    ("positions and cell numbers", "integers in the thousands"),
)
