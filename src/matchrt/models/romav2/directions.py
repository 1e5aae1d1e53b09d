"""Which image is matched to which. A batch `[2B, ...]` has first all images 0, then all images 1, of B pairs.

With both directions, all 2B images are matched, each to the other of its pair; with one, the B images 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from matchrt.models.roma.feature_map import FeatureMap


def matched_from(x: Tensor, symmetric: bool) -> Tensor:
    """The images `[D, ...]` that are matched; D is 2B with both directions, else B."""
    return x if symmetric else x.chunk(2)[0]


def matched_to(x: Tensor, symmetric: bool) -> Tensor:
    """The images `[D, ...]` that these are matched to."""
    first, second = x.chunk(2)
    return torch.cat([second, first]) if symmetric else second


def both_sides(features: FeatureMap, symmetric: bool) -> tuple[FeatureMap, FeatureMap]:
    """`matched_from` and `matched_to` of feature maps. Nothing is copied."""
    pairs = features.count // 2
    count = features.count if symmetric else pairs
    return features.part(0, count), features.part(pairs, count)
