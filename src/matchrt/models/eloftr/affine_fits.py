"""How far each match lies from the affine map of the matches around it, on the grid of cells of image 0.

For every cell an affine map is fitted to the matches of the cells around it by weighted least squares. All sums over
windows are separable filters of one depthwise convolution each way, so the work does not depend on the number of
matches, and CPUs run it in a fraction of a millisecond.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from matchrt.models.parts.coarse_matching import Grid, rows_and_columns
from matchrt.models.parts.constants import constant

CELL = 8.0  # pixels along a side of a cell
RIDGE = 0.5  # added to the windows' squared extents, in cells, so that few matches give a mere shift
_TINY = 1e-6
# The terms that the normal equations sum over the matches of a window, with x and y from the window's middle:
# 1, x, y, xx, xy, yy, u, v, xu, xv, yu, yv for points (x, y) of image 0 and (u, v) of image 1.
_ONE, _X, _Y, _XX, _XY, _YY, _U, _V, _XU, _XV, _YU, _YV = range(12)
_TERMS = 12
# A cell's x is dx, cells from the window's middle, and the offset within the cell. So those sums are made of these:
# (sum, factor, term of the offset, power of dy, power of dx). The plain ones come first, in the order of the terms.
_SUMS = (
    *((term, 1.0, term, 0, 0) for term in range(_TERMS)),
    *((_X, 1.0, _ONE, 0, 1), (_Y, 1.0, _ONE, 1, 0)),
    *((_XX, 1.0, _ONE, 0, 2), (_XX, 2.0, _X, 0, 1), (_YY, 1.0, _ONE, 2, 0), (_YY, 2.0, _Y, 1, 0)),
    *((_XY, 1.0, _ONE, 1, 1), (_XY, 1.0, _X, 1, 0), (_XY, 1.0, _Y, 0, 1)),
    *((_XU, 1.0, _U, 0, 1), (_XV, 1.0, _V, 0, 1), (_YU, 1.0, _U, 1, 0), (_YV, 1.0, _V, 1, 0)),
)
# Convolutions of CPUs take channels in blocks of 8 or 16; the channels after the sums are zeros.
_CHANNELS = 32


@dataclass(frozen=True)
class Field:
    """The matches on the grid of image 0; empty cells hold zeros.

    confidence: `[B,1,h,w]`.
    offset0: `[B,2,h,w]`, the points (x, y) of image 0 from their cells' own points, in cells.
    place1: `[B,2,h,w]`, the points (x, y) of image 1 from their weighted mean, in cells.
    terms: `[B,32,h,w]`, what the normal equations sum, of the points within their cells, once for each sum.
    """

    confidence: Tensor
    offset0: Tensor
    place1: Tensor
    terms: Tensor

    @classmethod
    def of(cls, keypoints0: Tensor, keypoints1: Tensor, confidence: Tensor, cells0: Tensor, grid0: Grid) -> Field:
        """keypoints0, keypoints1: pixels `[B,K,2]`. confidence: `[B,K]`, 0 for empty slots. cells0: int64 `[B,K]`."""
        own = torch.stack(rows_and_columns(cells0, grid0.width)[::-1], dim=2)
        points = torch.cat([keypoints0 / CELL - own, keypoints1 / CELL], dim=2)
        points = torch.where(confidence[:, :, None] > 0, points, torch.zeros_like(points))
        values = torch.cat([confidence[:, :, None], points], dim=2).transpose(1, 2)
        empty = values.new_zeros(values.shape[0], 5, grid0.height * grid0.width)
        # Two slots of one cell are both empty, so the order of writing does not matter.
        filled = empty.scatter(2, cells0[:, None, :].expand(-1, 5, -1), values)
        grid = filled.reshape(-1, 5, grid0.height, grid0.width)
        # Small numbers, because differences of their products are taken.
        total = grid[:, :1].sum(dim=(2, 3), keepdim=True) + _TINY
        middle = (grid[:, :1] * grid[:, 3:]).sum(dim=(2, 3), keepdim=True) / total
        place1 = grid[:, 3:] - middle
        return cls(grid[:, :1], grid[:, 1:3], place1, _terms(grid[:, 1:3], place1))

    def on_grid(self, values: Tensor, cells0: Tensor) -> Tensor:
        """Values of the slots `[B,K]` in their cells `[B,1,h,w]`; 0 in empty ones."""
        empty = torch.zeros_like(self.confidence).flatten(1)
        return empty.scatter(1, cells0, values).reshape(self.confidence.shape)


def _terms(offset0: Tensor, place1: Tensor) -> Tensor:
    x, y = offset0.chunk(2, dim=1)
    one, (u, v) = torch.ones_like(x), place1.chunk(2, dim=1)
    terms = [one, x, y, x * x, x * y, y * y, u, v, x * u, x * v, y * u, y * v]
    rest = torch.zeros_like(x).expand(-1, _CHANNELS - len(_SUMS), -1, -1)
    return torch.cat([*(terms[term] for _, _, term, _, _ in _SUMS), rest], dim=1)


@dataclass(frozen=True)
class Fits:
    """The affine maps of all cells, each without its own match, for R sizes of windows.

    mass: `[B,R,h,w]`, the weight of the matches around.
    residual: `[B,R,2,h,w]`, the points (x, y) of image 1 from where the maps put them, in pixels.
    """

    mass: Tensor
    residual: Tensor

    @property
    def distance(self) -> Tensor:
        """The squared lengths of the residuals, square pixels `[B,R,h,w]`."""
        return (self.residual * self.residual).sum(dim=2)


def window_sums(values: Tensor, radius: int) -> Tensor:
    """The normal equations' sums over windows without their middles, `[B,12,h,w]`, from weighted terms `[B,32,h,w]`.

    dx, dy: cells from each window's middle. Moments about a common origin would lose the digits that tell one affine
    map from another.
    """
    steps = range(-radius, radius + 1)
    powers = [(i, j) for *_, i, j in _SUMS] + [(0, 0)] * (_CHANNELS - len(_SUMS))
    along_x = constant([[float(step**j) for step in steps] for _, j in powers], values)
    along_y = constant([[float(step**i) for step in steps] for i, _ in powers], values)
    total = constant([[_factor(channel, found) for channel in range(_CHANNELS)] for found in range(_TERMS)], values)
    rows = F.conv2d(values, along_x[:, None, None, :], padding=(0, radius), groups=_CHANNELS)
    sums = F.conv2d(rows, along_y[:, None, :, None], padding=(radius, 0), groups=_CHANNELS)
    # In the middle all steps are 0, so only the plain sums hold its values.
    return F.conv2d(sums, total[:, :, None, None]) - values[:, :_TERMS]


def _factor(channel: int, found: int) -> float:
    """How often the sum of a channel counts in the sum `found`."""
    return _SUMS[channel][1] if channel < len(_SUMS) and _SUMS[channel][0] == found else 0.0


def fit(field: Field, weight: Tensor, radii: tuple[int, ...]) -> Fits:
    """Fits of weight `[B,1,h,w]` over windows of so many cells to each side.

    Residuals of empty cells mean nothing. Source: the normal equations of weighted linear regression, with a ridge.
    """
    terms = field.terms * weight
    sums = torch.stack([window_sums(terms, radius) for radius in radii], dim=1)
    mass = sums[:, :, :1].clamp(min=0.0)  # a difference, which may round to a little less than 0
    total = mass + _TINY
    _, mean, squares, mean1, by_x, by_y = torch.split(sums / total, [1, 2, 3, 2, 2, 2], dim=2)
    mean_x, mean_y = mean.chunk(2, dim=2)
    ridge = (RIDGE / total) * constant([[1.0, 0.0, 1.0]], total)[:, None, :, None, None]
    products = torch.cat([mean * mean_x, mean_y * mean_y], dim=2)  # xx, xy, yy
    xx, xy, yy = (squares - products + ridge).chunk(3, dim=2)
    by_x, by_y = by_x - mean_x * mean1, by_y - mean_y * mean1
    apart_x, apart_y = (field.offset0[:, None] - mean).chunk(2, dim=2)
    volume = (xx * yy - xy * xy).clamp(min=_TINY)
    along_x, along_y = (yy * apart_x - xy * apart_y) / volume, (xx * apart_y - xy * apart_x) / volume
    residual = (field.place1[:, None] - mean1 - along_x * by_x - along_y * by_y) * CELL
    return Fits(mass[:, :, 0], residual)
