"""An estimate as the dense outputs of an engine: clamped to the images, and both directions side by side."""

from __future__ import annotations

import torch
from torch import Tensor

from matchrt.models.roma.grid import pixel_grid
from matchrt.models.roma.network import DenseMatches
from matchrt.models.romav2.refiner import Estimate


def dense_matches(estimate: Estimate, symmetric: bool) -> tuple[DenseMatches, Tensor]:
    """Warp and certainty, and the precision `[B,H,W or 2W,3]` of each position in the image that is matched to.

    The precision is p00, p10 and p11 as in `Estimate`; the right half of a warp of both directions is that of positions
    in images 0.
    The certainty is the overlap, and 0 where the warp leaves the image. symmetric: see `directions`.
    """
    height, width = estimate.warp.shape[2:]
    outside = estimate.warp.abs().amax(dim=1) > 1.0
    overlap = estimate.overlap[:, 0]
    certainty = torch.where(outside, torch.zeros_like(overlap), overlap)
    target = estimate.warp.clamp(-1.0, 1.0).permute(0, 2, 3, 1)
    here = pixel_grid(height, width, target.device).permute(0, 2, 3, 1).expand(target.shape[0], -1, -1, -1)
    assert estimate.precision is not None
    precision = estimate.precision.permute(0, 2, 3, 1)
    if not symmetric:
        return DenseMatches(torch.cat([here, target], dim=3), certainty), precision
    from_first, from_second = target.chunk(2)
    here = here.chunk(2)[0]
    left, right = torch.cat([here, from_first], dim=3), torch.cat([from_second, here], dim=3)
    warp = torch.cat([left, right], dim=2)
    return DenseMatches(warp, torch.cat(certainty.chunk(2), dim=2)), torch.cat(precision.chunk(2), dim=2)
