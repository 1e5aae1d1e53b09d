"""A barrier for compilers that compute a value anew wherever it is read."""

from __future__ import annotations

import torch
from torch import Tensor


def stored(x: Tensor) -> Tensor:
    """x itself, by way of an operator that is a kernel of its own: the larger one of each value and one less.

    Compilers fuse everything lighter into whatever reads it. A value that many threads read is then computed as many
    times: the corner of a correlation window for every channel of every pixel in it, which took 6 of RoMa's 46 ms on an
    H200, or the logarithm of a softmax's sum for every pair of cells.

    x: float32 of any shape, without NaN. Returns the same values.
    """
    return torch.stack([x, x - 1.0], dim=-1).topk(1, dim=-1).values[..., 0]


def stored_integers(x: Tensor) -> Tensor:
    """`stored` for int32 of any shape; values beyond 2^24, which float32 does not hold, are for the caller to avoid."""
    return stored(x.to(torch.float32)).to(torch.int32)
