"""What every network of matchrt returns: K match slots for each pair."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class MatchTensors:
    """K match slots for each pair, sorted by score; rows after `num_matches` are zero.

    keypoints0: float32 `[B,K,2]`, (x, y) in pixels of the network's input 0: x right, y down, the centre of the
        top-left pixel is (0, 0).
    keypoints1: float32 `[B,K,2]`, the matching points in pixels of input 1.
    scores: float32 `[B,K]` in 0..1, descending.
    num_matches: int32 `[B]`, how many of the K slots are matches.
    margin: float32 `[B,K]`: how clearly the network chose the pixels of a match, (best - second) / best of their
        confidences. None if it chooses no pixels. Where `reach` is given and all slots were taken, it is at most how
        far the confidence that got the match its slot lies above the smallest one. It is not part of an engine; it
        tells rounding at a tie from a mistake.
    reach: float32 `[1]`: within how many pixels of image 0 a match changes scores and places of others. None if it
        changes none. It is not part of an engine either.
    """

    keypoints0: Tensor
    keypoints1: Tensor
    scores: Tensor
    num_matches: Tensor
    margin: Tensor | None = None
    reach: Tensor | None = None


def finished(
    keypoints0: Tensor, keypoints1: Tensor, scores: Tensor, margin: Tensor | None = None
) -> MatchTensors:  # fmt: skip
    """Counts the slots with a score above 0, and zeroes the points of the others; shapes as in `MatchTensors`."""
    real = scores > 0
    keep = real[:, :, None]
    zero = torch.zeros_like(keypoints0)
    return MatchTensors(
        torch.where(keep, keypoints0, zero),
        torch.where(keep, keypoints1, zero),
        scores,
        real.sum(dim=1).to(torch.int32),
        margin,
    )
