"""DINOv2: the frozen vision transformer that gives RoMa its coarse features (Oquab et al., 2023)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matchrt.models.roma.config import DINOv2Config, Size
from matchrt.models.roma.transformer import Block


class PatchEmbed(nn.Module):
    """Image to patch tokens, `[B,3,H,W] -> [B,(H/p)*(W/p),C]`, row-major."""

    def __init__(self, dim: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, stride=patch)

    def forward(self, image: Tensor) -> Tensor:
        """`[B,3,H,W] -> [B,(H/p)*(W/p),C]`; sides are multiples of the patch."""
        return self.proj(image).flatten(2).transpose(1, 2)


class DINOv2(nn.Module):
    """The transformer; names are those of the published checkpoints. `mask_token` serves training only."""

    def __init__(self, config: DINOv2Config) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        self.patch_embed = PatchEmbed(dim, config.patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, config.grid**2 + 1, dim))
        self.blocks = nn.Sequential(
            *(Block(dim, config.heads, config.mlp_ratio, 1e-6, True, True) for _ in range(config.depth))
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def position(self, grid: Size) -> Tensor:
        """The position embedding `[1, rows*columns + 1, C]` for that grid of patches; see `resample_position`."""
        return resample_position(self.pos_embed, grid)

    def forward(self, image: Tensor, position: Tensor) -> Tensor:
        """`image [B,3,H,W]` and the `position` of its grid -> normalised tokens `[B, 1 + patches, C]`, class first."""
        tokens = self.patch_embed(image)
        x = torch.cat([self.cls_token.expand(tokens.shape[0], -1, -1), tokens], dim=1) + position
        return self.norm(self.blocks(x))


def resample_position(stored: Tensor, grid: Size) -> Tensor:
    """The stored embedding `[1, g*g + 1, C]` at another grid, `[1, rows*columns + 1, C]`, as DINOv2's own code does it.

    The interpolation is bicubic and never antialiased. The official code passes the factor (side + 0.1) / g, against
    rounding, and so samples with that fractional step. Resizing to the integer size samples elsewhere: 12 % rms off at
    40 x 40. Error: ValueError if the interpolation gives another grid.
    """
    side = round((stored.shape[1] - 1) ** 0.5)
    if grid == (side, side):
        return stored
    patches = stored[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    factors = tuple((length + 0.1) / side for length in grid)
    resized = F.interpolate(patches.float(), scale_factor=factors, mode="bicubic", align_corners=False)
    if tuple(resized.shape[2:]) != tuple(grid):
        raise ValueError(f"position embedding came out as {tuple(resized.shape[2:])}, not {grid}")
    tokens = resized.permute(0, 2, 3, 1).reshape(1, grid[0] * grid[1], -1)
    return torch.cat([stored[:, :1], tokens.to(stored.dtype)], dim=1)
