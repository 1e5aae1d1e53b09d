"""Reads projected features at positions of the warp: the features are rows, one for each pixel.

`models.roma.sampling` says why there is no GridSample. Here the projections write rows `[N, C]`, so the tables of the
gathers lie in memory as they are read. A table has the rows of all images of the batch, and each query's image is part
of the index, so nothing is copied to swap the images.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from matchrt.models.roma.config import Size
from matchrt.models.roma.local_correlation import WindowInterpolation, WindowPositions
from matchrt.models.roma.sampling import corner, inside


class BilinearPositions(nn.Module):
    """The four pixels around each query, and their weights."""

    def forward(self, warp: Tensor, images: Tensor, size: Size) -> tuple[Tensor, Tensor]:
        """warp `[D,2,h,w]`, images int32 `[D]`, size of the map -> row of the table int32 `[D,N,4]`, weights float32.

        images: the image of the batch in which each row of the warp is. Weights are `[D,N,4]`, and 0 outside.
        """
        height, width = size
        at = corner(warp, height, width, margin=0)
        x = torch.stack([at.x, at.x + 1, at.x, at.x + 1], dim=2)
        y = torch.stack([at.y, at.y, at.y + 1, at.y + 1], dim=2)
        across = torch.stack([1 - at.right, at.right, 1 - at.right, at.right], dim=2)
        along = torch.stack([1 - at.down, 1 - at.down, at.down, at.down], dim=2)
        weights = across * along * inside(x, width) * inside(y, height)
        cells = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
        return cells + (images * (height * width))[:, None, None], weights


class RowSample(nn.Module):
    """Features between pixels, interpolated linearly, 0 outside of the map."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = BilinearPositions()

    def forward(self, table: Tensor, warp: Tensor, images: Tensor, size: Size) -> Tensor:
        """table `[images*H*W, C]`; the rest as in `BilinearPositions` -> `[D,N,C]`."""
        index, weights = self.positions(warp, images, size)
        taps = table.index_select(0, index.flatten()).reshape(*index.shape, table.shape[1])
        return (taps * weights[..., None].to(taps.dtype)).sum(dim=2)


class RowCorrelation(nn.Module):
    """Products of each query with the features in a window around where the warp points.

    Whole pixels are multiplied and the products interpolated; `models.roma.local_correlation` says why. The window's
    lines follow one another, so that only one line of features is gathered at a time.
    """

    def __init__(self, radius: int) -> None:
        super().__init__()
        self.positions = WindowPositions(radius)
        self.interpolate = WindowInterpolation()

    def forward(self, query: Tensor, table: Tensor, warp: Tensor, images: Tensor, size: Size) -> Tensor:
        """`sum_c query * table(warp + displacement) / sqrt(C)` -> float32 `[D,N,(2r+1)^2]`, row by row of the window.

        query `[D,N,C]`; the rest as in `RowSample`. Displacements are whole pixels of the map.
        """
        height, width = size
        x, y, seen, right, down = self.positions(warp, height, width)
        first = (images * (height * width))[:, None, None]
        # One clamp for all lines: with equal clamps, the exporter's optimiser names bounds twice.
        columns, starts = x.clamp(0, width - 1), y.clamp(0, height - 1) * width + first
        scaled = (query * query.shape[2] ** -0.5)[:, :, None]
        lines = []
        for line in range(x.shape[2]):
            index = columns + starts[:, :, line : line + 1]
            taps = table.index_select(0, index.flatten()).reshape(*index.shape, table.shape[1])
            lines.append((taps * scaled).sum(dim=3))
        return self.interpolate(torch.stack(lines, dim=2), seen, right, down).flatten(2)
