"""Correlation of each pixel of image 0 with a window of image 1 around where the flow points (RoMa, section 3.2).

The window's displacements are whole pixels, so all its bilinear samples share one pair of fractions. Correlation is
linear in the sampled feature: instead of interpolating (2r+1)^2 feature vectors, which materialises (2r+1)^2 * C values
a pixel several times over, this computes (2r+2)^2 dot products with the features of whole pixels and interpolates the
products. Two ways to the products:

- volume: all pairs as one matrix product, from which the window is gathered. Best while the map is small.
- gather: the features of one window row at a time are gathered and reduced. Memory is (2r+2) * C a pixel.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from matchrt.models.parts.stored import stored_integers
from matchrt.models.roma.feature_map import FeatureMap
from matchrt.models.roma.sampling import corner, inside


class WindowPositions(nn.Module):
    """The rows and columns of each query's window of (2r+2)^2 pixels, and the fractions that interpolate them."""

    def __init__(self, radius: int) -> None:
        super().__init__()
        self.radius = radius

    def forward(self, flow: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """flow `[B,2,h,w]` -> x, y int32 `[B,N,S]`; seen float `[B,N,S,S]`; right, down float `[B,N]`; S = 2r+2.

        seen: 1 where a pixel is on the map, rows of the window first.
        """
        at = corner(flow, height, width, margin=self.radius)
        steps = torch.arange(-self.radius, self.radius + 2, device=flow.device, dtype=torch.int32)
        x, y = at.x[:, :, None] + steps, at.y[:, :, None] + steps
        seen = inside(y, height)[..., None] * inside(x, width)[:, :, None]
        return stored_integers(x), stored_integers(y), seen, at.right, at.down


class WindowInterpolation(nn.Module):
    """Turns products with whole pixels into products with the bilinear samples between them, in float32."""

    def forward(self, products: Tensor, seen: Tensor, right: Tensor, down: Tensor) -> Tensor:
        """`[B,N,S,S]` -> `[B,N,S-1,S-1]`; the other arguments as `WindowPositions` gives them."""
        known = products.float() * seen
        across, along = right[:, :, None, None], down[:, :, None, None]
        between_rows = known[:, :, :-1] * (1 - along) + known[:, :, 1:] * along
        return between_rows[..., :-1] * (1 - across) + between_rows[..., 1:] * across


class LocalCorrelation(nn.Module):
    """The local correlation that the module describes.

    volume_pixels: pixels of the largest map for which all pairs are correlated.
    """

    def __init__(self, radius: int, volume_pixels: int) -> None:
        super().__init__()
        self.volume_pixels = volume_pixels
        self.positions = WindowPositions(radius)
        self.interpolate = WindowInterpolation()

    def forward(self, features0: FeatureMap, features1: FeatureMap, flow: Tensor) -> Tensor:
        """`sum_c f0 * f1(flow + displacement) / sqrt(C)` -> `[B,h*w,(2r+1)^2]`, row by row of the window; 0 outside.

        flow: normalised positions in image 1 of the pixels of features0, `[B,2,h,w]`.
        """
        x, y, seen, right, down = self.positions(flow, *features1.size)
        rows = features0.rows
        query = rows * rows.shape[2] ** -0.5
        small = max(math.prod(features0.size), math.prod(features1.size)) <= self.volume_pixels
        products = (_volume_products if small else _gather_products)(query, features1, x, y)
        return self.interpolate(products, seen, right, down).flatten(2)


def _volume_products(query: Tensor, features: FeatureMap, x: Tensor, y: Tensor) -> Tensor:
    """query `[B,N,C]`, pixels x and y `[B,N,S]` -> products `[B,N,S,S]`, rows of the window first."""
    height, width = features.size
    volume = query @ features.rows.transpose(1, 2)
    cells = y.clamp(0, height - 1)[..., None] * width + x.clamp(0, width - 1)[:, :, None]
    return volume.gather(2, cells.flatten(2).to(torch.int64)).reshape(cells.shape)


def _gather_products(query: Tensor, features: FeatureMap, x: Tensor, y: Tensor) -> Tensor:
    """The same as `_volume_products`, without correlating all pairs."""
    batch, count, channels = query.shape
    table, side = features.table, x.shape[2]
    height, width = features.size
    first = features.starts()[:, None, None]
    # One clamp for all rows: with equal clamps, the exporter's optimiser names bounds twice, and the graph is invalid.
    columns, starts = x.clamp(0, width - 1), y.clamp(0, height - 1) * width + first
    lines = []
    for line in range(side):
        index = columns + starts[:, :, line : line + 1]
        taps = table.index_select(0, index.flatten()).reshape(batch, count, side, channels)
        lines.append((taps * query[:, :, None]).sum(dim=3))
    return torch.stack(lines, dim=2)
