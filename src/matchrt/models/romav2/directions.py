"""Which image is matched to which. A batch `[2B, ...]` has first all images 0, then all images 1, of B pairs.

With both directions, all 2B images are matched, each to the other of its pair; with one, the B images 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from matchrt.models.roma.decoder import swapped


def matched_from(x: Tensor, symmetric: bool) -> Tensor:
    """The images `[D, ...]` that are matched; D is 2B with both directions, else B."""
    return x if symmetric else x.chunk(2)[0]


def matched_to(x: Tensor, symmetric: bool) -> Tensor:
    """The images `[D, ...]` that these are matched to."""
    return swapped(x) if symmetric else x.chunk(2)[1]


def partners(images: int, symmetric: bool, device: torch.device) -> Tensor:
    """The number in the batch of `images` of each image that is matched to, int32 `[D]`."""
    pairs = images // 2
    numbers = [*range(pairs, images), *range(pairs)] if symmetric else [*range(pairs, images)]
    return torch.tensor(numbers, dtype=torch.int32, device=device)
