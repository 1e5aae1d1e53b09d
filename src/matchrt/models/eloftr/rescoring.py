"""Scores of matches from how well the matches around them agree: eloftr-lite's.

A coarse confidence says how much two cells look alike. It does not see whether the cell's neighbours went the same way,
which is most of what tells right matches from wrong ones: where 97 % of the kept matches are right, .89 of all right
ones are kept instead of .33 (docs/models/eloftr-lite.md). Around every match an affine map is fitted to the other
matches by weighted least squares, over windows of 7 x 7 and 13 x 13 cells. How far the match lies from that map, and
how much agreeing confidence lies around it, decide its score: a small perceptron turns them into the probability that
the match is within 3 pixels.

The fit is repeated with weights that fall with each match's own distance, so wrong matches lose their say (iteratively
reweighted least squares with Cauchy weights; Holland and Welsch 1977). All sums over windows are separable filters on
the grid of cells of image 0. Everything is float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matchrt.models.parts.coarse_matching import Grid, rows_and_columns

CELL = 8.0  # pixels along a side of a cell
RADII = (3, 6)  # cells of a window to each side of its middle
# Confidence from which on a pair of cells is a candidate. The score decides whether it is a match.
CANDIDATE = 0.02
# Candidates fade in over so much of that, so that rounding, which decides what is just above it, changes no score.
FADE = 0.05
# Squared distances in pixels at which a match has half its weight, in the first and the second fit, and for the sums.
HALF_WEIGHTS = (64.0, 16.0, 9.0)
RIDGE = 0.5  # added to the windows' squared extents, in cells, so that few matches give a mere shift
ODDS = 1e-3  # confidences nearer to 0 or 1 than this are taken as this
EVIDENCE = 10  # values for each match
_FURTHEST = 1e6  # squared pixels
_TINY = 1e-6


@dataclass(frozen=True)
class Field:
    """The candidates on the grid of image 0; empty cells hold zeros.

    confidence: `[B,1,h,w]`.
    offset0: `[B,2,h,w]`, the points (x, y) of image 0 from their cells' own points, in cells.
    place1: `[B,2,h,w]`, the points (x, y) of image 1 from their weighted mean, in cells.
    """

    confidence: Tensor
    offset0: Tensor
    place1: Tensor

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
        return cls(grid[:, :1], grid[:, 1:3], grid[:, 3:] - middle)


def around(values: Tensor, radius: int) -> Tensor:
    """The sums of `values [B,C,h,w]` over the windows around each cell, without the cell itself."""
    side = 2 * radius + 1
    rows = F.avg_pool2d(values, (1, side), 1, (0, radius))
    return F.avg_pool2d(rows, (side, 1), 1, (radius, 0)) * float(side * side) - values


def moments(values: Tensor, radius: int) -> Tensor:
    """`[B,C,3,3,h,w]`: sums over the windows of `values [B,C,h,w]` times dy^i dx^j, as `[:, :, i, j]`.

    dx, dy: cells from each window's middle, which is left out. Moments about a common origin would lose the digits that
    tell one affine map from another.
    """
    batch, channels, height, width = values.shape
    steps = torch.arange(-radius, radius + 1, device=values.device, dtype=values.dtype)
    powers = torch.stack([torch.ones_like(steps), steps, steps * steps])
    rows = F.conv2d(values.reshape(-1, 1, height, width), powers[:, None, None, :], padding=(0, radius))
    sums = F.conv2d(rows.reshape(-1, 1, height, width), powers[:, None, :, None], padding=(radius, 0))
    found = sums.reshape(batch, channels, 3, 3, height, width).transpose(2, 3)
    middle = (powers[:, radius][:, None] * powers[:, radius][None, :])[None, None, :, :, None, None]
    return found - middle * values[:, :, None, None]


def distances(field: Field, weight: Tensor, radius: int) -> Tensor:
    """Squared distances, pixels `[B,1,h,w]`, of the points of image 1 from the affine maps of the matches around them.

    weight: `[B,1,h,w]` of each match in the fits; 0 for empty cells, whose distances mean nothing.
    """
    x, y = field.offset0.chunk(2, dim=1)
    squares = torch.cat([x * x, x * y, y * y], dim=1)
    products = torch.cat([field.place1, x * field.place1, y * field.place1], dim=1)
    sums = moments(torch.cat([torch.ones_like(weight), x, y, squares, products], dim=1) * weight, radius)
    plain, by_x, by_y = sums[:, :, 0, 0], sums[:, :, 0, 1], sums[:, :, 1, 0]
    total = plain[:, :1] + _TINY
    mean_x, mean_y = (by_x[:, :1] + plain[:, 1:2]) / total, (by_y[:, :1] + plain[:, 2:3]) / total
    mean1 = plain[:, 6:8] / total
    ridge = RIDGE / total
    xx = (sums[:, :1, 0, 2] + 2 * by_x[:, 1:2] + plain[:, 3:4]) / total - mean_x * mean_x + ridge
    xy = (sums[:, :1, 1, 1] + by_y[:, 1:2] + by_x[:, 2:3] + plain[:, 4:5]) / total - mean_x * mean_y
    yy = (sums[:, :1, 2, 0] + 2 * by_y[:, 2:3] + plain[:, 5:6]) / total - mean_y * mean_y + ridge
    along_x = (by_x[:, 6:8] + plain[:, 8:10]) / total - mean_x * mean1
    along_y = (by_y[:, 6:8] + plain[:, 10:12]) / total - mean_y * mean1
    slope_x, slope_y = yy * along_x - xy * along_y, xx * along_y - xy * along_x
    turned = (slope_x * (x - mean_x) + slope_y * (y - mean_y)) / (xx * yy - xy * xy).clamp(min=_TINY)
    apart = (field.place1 - mean1 - turned) * CELL
    return (apart * apart).sum(dim=1, keepdim=True)


def evidence(field: Field) -> Tensor:
    """What the score of each match depends on: `[B,10,h,w]`; zero for empty cells.

    The logarithm of the odds of the confidence, five distances from the fits, and the confidence around the match in
    both windows: all of it, and what agrees.
    """
    confidence = field.confidence
    first = distances(field, confidence, RADII[1])
    weight = confidence / (1 + first / HALF_WEIGHTS[0])
    second = [distances(field, weight, radius) for radius in reversed(RADII)]
    weight = confidence / (1 + torch.minimum(*second) / HALF_WEIGHTS[1])
    third = [distances(field, weight, radius) for radius in reversed(RADII)]
    agreeing = confidence / (1 + torch.minimum(*third) / HALF_WEIGHTS[2])
    limited = confidence.clamp(ODDS, 1 - ODDS)
    odds = limited.log() - (1 - limited).log()
    far = torch.cat([first, *second, *third], dim=1).clamp(max=_FURTHEST).sqrt()
    near = torch.cat([around(each, radius) for each in (confidence, agreeing) for radius in RADII], dim=1)
    # The sums are differences, which may round to a little less than 0.
    found = torch.cat([odds, (1 + far).log(), (1 + near.clamp(min=0)).log()], dim=1)
    return torch.where(confidence > 0, found, torch.zeros_like(found))


def slot_evidence(keypoints0: Tensor, keypoints1: Tensor, confidence: Tensor, cells0: Tensor, grid0: Grid) -> Tensor:
    """The evidence of each slot, `[B,K,10]`. Arguments as in `Field.of`. A cell has one match at most."""
    weight = confidence * presence(confidence)
    found = evidence(Field.of(keypoints0, keypoints1, weight, cells0, grid0)).flatten(2)
    return found.gather(2, cells0[:, None, :].expand(-1, EVIDENCE, -1)).transpose(1, 2)


def presence(confidence: Tensor) -> Tensor:
    """How much each candidate counts, `[B,K]` in 0..1: less only near the least confidence."""
    return ((confidence / CANDIDATE - 1) / FADE).clamp(0, 1)


class Rescoring(nn.Module):
    """A perceptron from `evidence` to scores. Its weights are made by `tools.train_lite.rescoring`."""

    def __init__(self, hidden: int = 16) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Linear(EVIDENCE, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        )

    def forward(
        self, keypoints0: Tensor, keypoints1: Tensor, confidence: Tensor, cells0: Tensor, grid0: Grid
    ) -> Tensor:
        """Scores `[B,K]` in 0..1, 0 for empty slots; arguments as in `slot_evidence`."""
        present = presence(confidence)
        found = slot_evidence(keypoints0, keypoints1, confidence, cells0, grid0)
        return torch.sigmoid(self.layers(found)[:, :, 0]) * present
