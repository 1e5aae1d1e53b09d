"""Confidences of coarse cells from one product and one pass of exponentials, for graphs that run on CPUs.

A CPU spends as long on a product of 4800 x 4800 cells as on four passes over its result, and ten times as long on a
reduction along columns as on one along rows. Here the similarity is computed once, and what is needed of its columns
comes from a product or from reductions over an axis in the middle. GPUs are faster with two products
(`coarse_matching.TwoProducts`), whose values are the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# The largest similarity of a pair of images becomes this before exponentials: sums of 65536 of them stay below 1e31.
HEADROOM = 60.0
# The smallest sum of exponentials, whose logarithm is finite.
SMALLEST_SUM = 1e-37
# The difference of two values of `order` that counts as rounding: 0.006 % of a confidence.
TIE = 3e-5


@dataclass(frozen=True)
class OneProduct:
    """Confidences of a similarity; see `coarse_matching.Confidence`.

    similarity: float `[B,L,S]`.
    rows: float `[B,L]`.
    columns: float `[B,S]`. `similarity - rows[:, :, None] - columns[:, None, :]` is half the logarithm of the
        confidence.
    width0: columns of image 0's grid.
    width1: columns of image 1's grid.
    """

    similarity: Tensor
    rows: Tensor
    columns: Tensor
    width0: int
    width1: int

    @classmethod
    def of(cls, scores: Tensor, widths: tuple[int, int]) -> OneProduct:
        """The dual softmax of a similarity `scores [B,L,S]`. widths: columns of the grids of both images.

        It is half of the logarithm of the dual softmax, s - lse_row / 2 - lse_column / 2, so that no pass over all
        pairs is needed to double the similarity.
        """
        moved = scores - (scores.amax(dim=2).amax(dim=1) - HEADROOM)[:, None, None]
        rows, columns = log_sums(moved)
        return cls(moved, rows / 2, columns / 2, *widths)

    @property
    def within_rows(self) -> Tensor:
        """Float `[B,L,S]`, growing with the confidence within a row."""
        return self.similarity - self.columns[:, None, :]

    @property
    def order(self) -> Tensor:
        """Float `[B,L,S]`, growing with the confidence."""
        return self.within_rows - self.rows[:, :, None]

    def value_of(self, order: Tensor) -> Tensor:
        """Confidences in 0..1 of values of `order`."""
        return (2 * order).exp()

    def best_of_rows(self) -> tuple[Tensor, Tensor]:
        """For each cell of image 0 the largest value of `order` `[B,L]`, and its cell of image 1, int64 `[B,L]`.

        The search has two steps: the best row of image 1's grid, and the best cell in it. An operator that finds the
        place of a maximum takes much longer than one that finds its value, and must have all values in memory.
        """
        batch, cells0, _ = self.similarity.shape
        width = self.width1
        best = self.within_rows.reshape(batch, cells0, -1, width).amax(dim=3)
        height = best.shape[2]
        row = best.topk(1, dim=2)[1][:, :, 0]
        first = torch.arange(batch * cells0, device=row.device).reshape(batch, cells0) * height
        cells = F.embedding(row + first, self.similarity.reshape(-1, width))
        first = torch.arange(batch, device=row.device)[:, None] * height
        cells = cells - F.embedding(row + first, self.columns.reshape(-1, width))
        value, column = (found[:, :, 0] for found in cells.topk(1, dim=2))
        return value - self.rows, row * width + column

    def mutual(self, best: Tensor, best1: Tensor) -> Tensor:
        """Bool `[B,L]`: whether the confidence of each best cell is the largest of its column, too.

        The maxima of columns have two steps, each over an axis in the middle, which is reduced row by row. `TIE` is
        allowed, because the maxima of rows and columns come from kernels that may round differently.
        """
        batch, _, cells1 = self.similarity.shape
        columns = self.order.reshape(batch, -1, self.width0, cells1).amax(2).amax(1)
        return best >= columns.gather(1, best1) - TIE


def log_sums(scores: Tensor) -> tuple[Tensor, Tensor]:
    """The logarithms `[B,L]` and `[B,S]` of the sums of exponentials of `scores [B,L,S]`, whose largest is `HEADROOM`.

    The exponentials are computed once, for rows and columns, and no maximum of a row is subtracted. An exponential is
    zero where a similarity is 147 below the largest. A row or column of nothing else gets a sum that is too large,
    hence confidences that are too small. Any other is exact. The sum of columns is a product, which reads memory row by
    row.
    """
    exponentials = scores.exp()
    columns = (scores.new_ones(1, scores.shape[1]) @ exponentials)[:, 0, :]
    rows, columns = (x.clamp(min=SMALLEST_SUM).log() for x in (exponentials.sum(dim=2), columns))
    return rows, columns
