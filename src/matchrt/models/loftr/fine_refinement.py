"""Sub-pixel refinement of coarse matches in small windows of the fine maps (LoFTR, section 3.5)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matchrt.models.loftr.config import TransformerConfig
from matchrt.models.parts.coarse_matching import rows_and_columns


def gather_windows(features: Tensor, cells: Tensor, grid_width: int, stride: int, window: int) -> Tensor:
    """Windows of `features [B,C,H,W]` around the cells `[B,K]` -> `[B,K,window*window,C]`, zeros outside.

    The window of a cell at (row, column) is centred on pixel (row*stride, column*stride). Only the K windows that are
    needed are read; unfolding the whole map, as the official code does, would write it 25/16 times over.
    """
    radius = window // 2
    batch, channels = features.shape[:2]
    padded = F.pad(features, (radius, radius, radius, radius))
    width = padded.shape[3]
    flat = padded.permute(0, 2, 3, 1).reshape(-1, channels)
    row, column = rows_and_columns(cells, grid_width)
    corner = row * (stride * width) + column * stride
    offset = torch.arange(window, device=cells.device)
    offsets = (offset[:, None] * width + offset[None, :]).reshape(-1)
    first = torch.arange(batch, device=cells.device)[:, None] * (padded.shape[2] * width)
    return F.embedding((first + corner)[:, :, None] + offsets, flat)


class FinePreprocess(nn.Module):
    """Cuts the windows and mixes the coarse feature of the cell into each of their pixels."""

    def __init__(self, coarse_dim: int, fine_dim: int) -> None:
        super().__init__()
        self.down_proj = nn.Linear(coarse_dim, fine_dim)
        self.merge_feat = nn.Linear(2 * fine_dim, fine_dim)

    def forward(self, windows: Tensor, tokens: Tensor, cells: Tensor) -> Tensor:
        """windows `[B,K,W*W,Cf]`, tokens `[B,L,Cc]`, cells `[B,K]` -> `[B*K,W*W,Cf]`."""
        first = torch.arange(tokens.shape[0], device=cells.device)[:, None] * tokens.shape[1]
        picked = F.embedding(first + cells, tokens.flatten(0, 1))
        # The halves of the layer are two products: that of the cell is computed once for all pixels of a window.
        weight, channels = self.merge_feat.weight, windows.shape[3]
        context = F.linear(self.down_proj(picked), weight[:, channels:], self.merge_feat.bias)
        return (F.linear(windows, weight[:, :channels]) + context[:, :, None]).flatten(0, 1)


class FineRefinement(nn.Module):
    """Fine matching: correlation of image 0's centre pixel with image 1's window, and its expectation."""

    def __init__(self, config: TransformerConfig, window: int) -> None:
        super().__init__()
        if window % 2 == 0:
            raise ValueError(f"fine window {window} has no centre pixel; use an odd size")
        self.window = window
        self.scale = config.d_model**0.5

    def forward(self, x0: Tensor, x1: Tensor) -> tuple[Tensor, Tensor]:
        """x0, x1 `[N,W*W,C]` -> expectation `[N,2]` (x, y) in -1..1 of the window, standard deviation `[N]`."""
        centre = x0[:, self.window**2 // 2]
        heat = ((x1 @ centre[:, :, None])[:, :, 0] / self.scale).softmax(dim=1)
        line = torch.linspace(-1.0, 1.0, self.window, device=x0.device, dtype=heat.dtype)
        grid_x, grid_y = line.repeat(self.window), line.repeat_interleave(self.window)
        grid = torch.stack([grid_x, grid_y], dim=1)
        expectation = heat @ grid
        variance = heat @ grid**2 - expectation**2
        return expectation, variance.clamp(min=1e-10).sqrt().sum(dim=1)
