"""The match encoder: a Gaussian process regresses where image 0 is in image 1 (DKM, CVPR 2023, section 3.2)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from matchrt.models.roma.config import GPConfig
from matchrt.models.roma.feature_map import FeatureMap
from matchrt.models.roma.grid import pixel_grid
from matchrt.models.roma.spd_solve import solve_spd

# Rows of the diagonal blocks that are inverted; `spd_solve` says why not more. 1600 patches give ten equal blocks.
BLOCK = 160


def cosine_kernel(x: Tensor, y: Tensor, temperature: float) -> Tensor:
    """`exp((cos(x, y) - 1) / temperature)` of `[B,N,C]` and `[B,M,C]` -> `[B,N,M]`."""
    norms = x.norm(dim=2)[:, :, None] * y.norm(dim=2)[:, None, :]
    cosine = (x @ y.transpose(1, 2)) / (norms + 1e-6)
    return ((cosine - 1.0) / temperature).exp()


class GaussianProcess(nn.Module):
    """Posterior mean of the Fourier-embedded position of image 1, given the features of both, in float32."""

    def __init__(self, config: GPConfig) -> None:
        super().__init__()
        self.config = config
        self.pos_conv = nn.Conv2d(2, config.dim, 1)

    def embedding(self, height: int, width: int) -> Tensor:
        """`cos(8 pi (W xy + b))` of the pixel grid, `[1, height*width, dim]`."""
        grid = pixel_grid(height, width, self.pos_conv.weight.device)
        embedded = torch.cos(8.0 * math.pi * self.pos_conv(grid))
        return embedded.flatten(2).transpose(1, 2)

    def forward(self, x: FeatureMap, y: FeatureMap) -> Tensor:
        """Features of image 0 and image 1 -> rows `[B,h*w,dim]`, one for each pixel of x."""
        queries, support = x.rows.float(), y.rows.float()
        config = self.config
        covariance = cosine_kernel(support, support, config.temperature)
        targets = self.embedding(*y.size).expand(support.shape[0], -1, -1)
        weights = solve_spd(covariance, targets, config.noise, BLOCK)
        return cosine_kernel(queries, support, config.temperature) @ weights
