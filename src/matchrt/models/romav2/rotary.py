"""Rotary position embedding of patches (Su et al., 2021), in the two precisions that RoMa v2 has it in.

A patch's row and column are coordinates in -1..1. Each turns 16 pairs of channels by the angles 2 pi c / period, whose
periods go from 1 towards 100. The periods are bfloat16 in the published file. DINOv3's sines and cosines are computed
in float32 from them, the matcher's in bfloat16 with a rounding after every step, by up to 0.03 off. The matcher was
trained with these, so its tables are made in the same way, once, on the CPU. They are constants of the graph.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from matchrt.models.roma.config import Size

BASE = 100.0


class Rotation(NamedTuple):
    """What turns queries and keys. It is a tuple, because torch.compile 2.11 loses the fields of a frozen dataclass.

    cosine, sine: float32 `[N, D]` for N tokens and D channels of a head; channel j turns with channel j + D/2.
    """

    cosine: Tensor
    sine: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """`[..., N, D] -> [..., N, D]`, turned."""
        first, second = x.chunk(2, dim=-1)
        quarter = torch.cat([-second, first], dim=-1)
        return x * self.cosine.to(x.dtype) + quarter * self.sine.to(x.dtype)

    def behind(self, tokens: int) -> Rotation:
        """The same behind so many tokens that are not turned."""
        channels = self.cosine.shape[1]
        unturned = self.cosine.new_ones(tokens, channels)
        return Rotation(torch.cat([unturned, self.cosine]), torch.cat([0 * unturned, self.sine]))


def periods(head: int) -> Tensor:
    """bfloat16 `[head / 4]`: the periods of each axis, for `head` channels of an attention head."""
    count = head // 4
    return (BASE ** (torch.arange(count, dtype=torch.float32) / count)).to(torch.bfloat16)


def rotation(grid: Size, head: int, precision: torch.dtype) -> Rotation:
    """The rotation of a grid of patches (rows, columns), row by row.

    head: channels of an attention head. precision: the type in which every step is computed.
    """
    rows, columns = (_centres(length, precision) for length in grid)
    places = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).reshape(-1, 2, 1)
    angles = (2 * math.pi * places / periods(head).to(precision)).flatten(1)
    angles = torch.cat([angles, angles], dim=1)
    return Rotation(angles.cos().float(), angles.sin().float())


def _centres(length: int, precision: torch.dtype) -> Tensor:
    return 2 * ((torch.arange(length, dtype=precision) + 0.5) / length) - 1
