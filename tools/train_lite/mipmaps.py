"""Texture tiles with mipmaps, packed for look-ups in batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Tile = NDArray[np.uint8]

MIP_LEVELS = 4


@dataclass(frozen=True)
class Mipmaps:
    """Tiles ready for look-ups: one int32 a texel (red, green, blue from the lowest byte), a tile's levels in a row.

    texels `[N*stride]`; size: side of the largest level; stride: texels per tile.
    """

    texels: Tensor
    size: int
    stride: int


def build_mipmaps(tiles: list[Tile], device: torch.device) -> Mipmaps:
    """Mipmaps on `device` of tiles uint8 `[size,size,3]`."""
    size = tiles[0].shape[0]
    stride = sum((size >> level) ** 2 for level in range(MIP_LEVELS))
    texels = torch.empty(len(tiles), stride, dtype=torch.int32, device=device)
    weight = torch.tensor([1, 256, 65536], dtype=torch.int32, device=device)
    for index, tile in enumerate(tiles):
        level = torch.from_numpy(tile).to(device).permute(2, 0, 1)[None].float()
        begin = 0
        for _ in range(MIP_LEVELS):
            flat = (level[0].round().to(torch.int32) * weight[:, None, None]).sum(dim=0, dtype=torch.int32).flatten()
            texels[index, begin : begin + len(flat)] = flat
            begin += len(flat)
            level = F.avg_pool2d(level, 2)
    return Mipmaps(texels.flatten(), size, stride)
