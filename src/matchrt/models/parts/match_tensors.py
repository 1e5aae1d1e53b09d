"""What every network of matchrt gives: K match slots per pair."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class MatchTensors:
    """K match slots per pair, sorted by score; rows past `num_matches` are zero.

    margin: how clearly the network chose the pixels of a match, (best - second) / best of their confidences; None where
    it chooses none. Not part of an engine: it tells rounding at a tie from a mistake.
    """

    keypoints0: Tensor  # float32 [B,K,2]
    keypoints1: Tensor  # float32 [B,K,2]
    scores: Tensor  # float32 [B,K]
    num_matches: Tensor  # int32 [B]
    margin: Tensor | None = None  # float32 [B,K]


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
