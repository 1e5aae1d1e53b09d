"""The values that are added to similarities to take padding out of them."""

from __future__ import annotations

# Fill value of masked similarities: finite, so that a fully masked row gives a uniform softmax and never NaN.
MASKED = -1e9
# Added to the similarity of padding, so that its weight becomes zero. Half precision can hold it.
PADDING = -6e4
