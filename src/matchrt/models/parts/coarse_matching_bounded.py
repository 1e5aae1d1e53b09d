"""Dual-softmax matching of unit vectors, whose similarities are bounded, in few passes over all pairs of cells.

A product of unit vectors is a cosine, so exponentials of `scale` times it are in range without a maximum taken out
first, and sums of rows and columns come from one pass. The mutual test compares the similarities themselves: a pair is
a candidate if each is the most similar cell of the other. Its confidence is the dual softmax of Rocco et al. (NeurIPS
2018), as in `coarse_matching`, whose mutual test compares confidences and needs two more passes over all pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matchrt.models.parts.coarse_matching_once import TIE
from matchrt.models.parts.masks import MASKED, PADDING
from matchrt.models.parts.stored import stored

# Sums of 65536 exponentials of this stay below 1e23, and exponentials of its negative above 1e-18.
MAX_SCALE = 40.0
SMALLEST_SUM = 1e-37


@dataclass(frozen=True)
class Bounded:
    """What both forms of the confidence have; see `coarse_matching.Confidence`.

    similarity: float `[B,L,S]`, within +-MAX_SCALE, or far below for padding.
    rows: float `[B,L]`, logarithms of the rows' sums of exponentials.
    columns: float `[B,S]`, the same of the columns.
    """

    similarity: Tensor
    rows: Tensor
    columns: Tensor

    @property
    def order(self) -> Tensor:
        """Float `[B,L,S]`: logarithms of the confidence."""
        return 2 * self.similarity - self.rows[:, :, None] - self.columns[:, None, :]

    def value_of(self, order: Tensor) -> Tensor:
        """Confidences in 0..1 of values of `order`."""
        return order.exp()


@dataclass(frozen=True)
class BoundedProduct(Bounded):
    """Confidences of a bounded similarity, computed once.

    best_columns: float `[B,S]`, the largest similarity of each column.
    width1: columns of image 1's grid.
    """

    best_columns: Tensor
    width1: int

    def best_of_rows(self) -> tuple[Tensor, Tensor]:
        """For each cell of image 0 its most similar cell of image 1, int64 `[B,L]`, and their `order` `[B,L]`."""
        best, best1 = largest_of_rows(self.similarity, self.width1)
        return 2 * best - self.rows - self.columns.gather(1, best1), best1

    def mutual(self, best: Tensor, best1: Tensor) -> Tensor:
        """Bool `[B,L]`: whether each cell of image 0 is the most similar one of its own most similar cell."""
        similarity = (best + self.rows + self.columns.gather(1, best1)) / 2
        return similarity >= self.best_columns.gather(1, best1) - TIE


@dataclass(frozen=True)
class BoundedProducts(Bounded):
    """The same with a second, transposed product, so that a GPU reduces rows only.

    best0: int64 `[B,S]`, the most similar cell of image 0 for each cell of image 1.
    """

    best0: Tensor

    def best_of_rows(self) -> tuple[Tensor, Tensor]:
        """See `BoundedProduct`."""
        best, best1 = self.similarity.max(dim=2)
        return 2 * best - self.rows - self.columns.gather(1, best1), best1

    def mutual(self, best: Tensor, best1: Tensor) -> Tensor:
        """See `BoundedProduct`. It compares cells and not values: the two products may round apart."""
        cells = torch.arange(best1.shape[1], device=best1.device)
        return self.best0.gather(1, best1) == cells[None]


def largest_of_rows(scores: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The largest value of each row of `scores [B,L,S]` and its place, int64; S is a multiple of `width`.

    The search has two steps, a line of the grid and a cell in it, because an operator that finds the place of a maximum
    takes a CPU much longer than one that finds its value.
    """
    batch, cells0, _ = scores.shape
    lines = scores.reshape(batch, cells0, -1, width)
    best = lines.amax(dim=3)
    line = best.topk(1, dim=2)[1][:, :, 0]
    first = torch.arange(batch * cells0, device=line.device).reshape(batch, cells0) * best.shape[2]
    value, column = (found[:, :, 0] for found in F.embedding(line + first, scores.reshape(-1, width)).topk(1, dim=2))
    return value, line * width + column


class CosineScores(nn.Module):
    """The confidence between the cells of both images from the cosines of their features; `scale` is learned.

    twice: whether to compute the similarity a second time, transposed, as GPUs like it; None does so in graphs of fixed
        size, which are made for GPUs.
    """

    def __init__(self, scale: float = 20.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.twice: bool | None = None

    def similarity(self, x0: Tensor, x1: Tensor, mask0: Tensor | None = None, mask1: Tensor | None = None) -> Tensor:
        """`[B,L,S]` of x0 `[B,L,C]` and x1 `[B,S,C]`, for training; pairs with padding get -1e9."""
        first, second = self._scaled(x0, x1)
        scores = first @ second.transpose(1, 2)
        if mask0 is None or mask1 is None:
            return scores
        return scores.masked_fill(~(mask0[:, :, None] & mask1[:, None, :]), MASKED)

    def forward(
        self, x0: Tensor, x1: Tensor, widths: tuple[int, int], mask0: Tensor | None = None, mask1: Tensor | None = None
    ) -> BoundedProduct | BoundedProducts:
        """The confidence of the cells x0 `[B,L,C]` and x1 `[B,S,C]`; arguments as in `CoarseScores`."""
        first, second = self._scaled(x0, x1)
        if mask0 is not None and mask1 is not None:
            first, second = _with_padding(first, second, mask0, mask1)
        scores = first @ second.transpose(1, 2)
        if isinstance(x0.shape[1], int) if self.twice is None else self.twice:
            transposed = second @ first.transpose(1, 2)
            rows, columns = stored(_log_sums(scores)), stored(_log_sums(transposed))
            return BoundedProducts(scores, rows, columns, transposed.argmax(dim=2))
        exponentials = scores.exp()
        columns = (scores.new_ones(1, scores.shape[1]) @ exponentials)[:, 0, :]
        rows, columns = (x.clamp(min=SMALLEST_SUM).log() for x in (exponentials.sum(dim=2), columns))
        batch, _, cells1 = scores.shape
        # In two steps over axes in the middle, which are reduced row by row.
        most = scores.reshape(batch, -1, widths[0], cells1).amax(2).amax(1)
        return BoundedProduct(scores, rows, columns, most, widths[1])

    def _scaled(self, x0: Tensor, x1: Tensor) -> tuple[Tensor, Tensor]:
        return unit(x0) * self.scale.clamp(max=MAX_SCALE), unit(x1)


def unit(x: Tensor) -> Tensor:
    """x `[...,C]` divided by its length."""
    return x * (x.square().sum(dim=-1, keepdim=True) + 1e-6).rsqrt()


def _log_sums(scores: Tensor) -> Tensor:
    return scores.exp().sum(dim=2).clamp(min=SMALLEST_SUM).log()


def _with_padding(x0: Tensor, x1: Tensor, mask0: Tensor, mask1: Tensor) -> tuple[Tensor, Tensor]:
    """Eight more channels, which add PADDING, or twice that, to the similarities of padding."""
    outside0, outside1 = ((~mask)[:, :, None].to(x0.dtype) for mask in (mask0, mask1))
    one0, one1 = torch.ones_like(outside0), torch.ones_like(outside1)
    rest0, rest1 = (torch.zeros_like(one).expand(-1, -1, 6) for one in (one0, one1))
    return torch.cat([x0, outside0 * PADDING, one0, rest0], 2), torch.cat([x1, one1, outside1 * PADDING, rest1], 2)
