"""Dual-softmax matching of coarse cells with static shapes: top-K instead of NonZero."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matchrt.models.parts.coarse_matching_once import OneProduct
from matchrt.models.parts.config import CoarseMatchConfig
from matchrt.models.parts.masks import MASKED, PADDING
from matchrt.models.parts.stored import stored

# Without the softmax, the authors of EfficientLoFTR take matches whose similarity is above this.
SATURATING_SIMILARITY = 25.0


@dataclass(frozen=True)
class Grid:
    """A coarse grid: its size in cells, and which cells hold image rather than padding.

    height: rows of cells.
    width: columns of cells.
    valid_height: int [B], rows of cells that hold image; None if the whole grid does.
    valid_width: int [B], columns of cells that hold image; None if the whole grid does.
    """

    height: int
    width: int
    valid_height: Tensor | None = None
    valid_width: Tensor | None = None

    def mask(self) -> Tensor | None:
        """bool `[B, height*width]`, True for image; None if the whole grid is image."""
        return None if self.valid_height is None else self._inside(0)

    def valid(self) -> Tensor | None:
        """int `[B,2]`: valid height and width in cells; None if the whole grid is image."""
        if self.valid_height is None or self.valid_width is None:
            return None
        return torch.stack([self.valid_height, self.valid_width], dim=1)

    def interior(self, border: int, device: torch.device) -> Tensor:
        """bool `[B or 1, height*width]`: cells at least `border` cells away from the edge of the valid area."""
        if self.valid_height is not None:
            return self._inside(border)
        rows = torch.arange(self.height, device=device)
        columns = torch.arange(self.width, device=device)
        inside_rows = (rows >= border) & (rows < self.height - border)
        inside_columns = (columns >= border) & (columns < self.width - border)
        return (inside_rows[:, None] & inside_columns[None, :]).reshape(1, -1)

    def _inside(self, border: int) -> Tensor:
        assert self.valid_height is not None and self.valid_width is not None
        rows = torch.arange(self.height, device=self.valid_height.device)[None]
        columns = torch.arange(self.width, device=self.valid_height.device)[None]
        inside_rows = (rows >= border) & (rows < self.valid_height[:, None] - border)
        inside_columns = (columns >= border) & (columns < self.valid_width[:, None] - border)
        return _both(inside_rows, inside_columns).flatten(1)


def _both(rows: Tensor, columns: Tensor) -> Tensor:
    """`rows[:, :, None] & columns[:, None, :]` of bool `[B,h]` and `[B,w]`, as a matrix product.

    A product is a kernel of its own. TensorRT fuses anything lighter into each of its users, and there computes the
    mask once for every channel: 0.2 ms for a grid of 4800 cells. It takes products over less than 16 values apart too,
    so 15 of them are zeros.
    """
    left = F.pad(rows.to(torch.float32)[:, :, None], (0, 15))
    return left @ F.pad(columns.to(torch.float32)[:, None, :], (0, 0, 0, 15)) > 0.5


@dataclass(frozen=True)
class CoarseMatches:
    """K candidate matches sorted by score; slots after the last match have score 0.

    index0: int64 `[B,K]`, the cell of image 0, row by row.
    index1: int64 `[B,K]`, the cell of image 1, row by row.
    scores: float `[B,K]` in 0..1, descending.
    """

    index0: Tensor
    index1: Tensor
    scores: Tensor


def rows_and_columns(cells: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Row and column of row-major cell numbers, int64 of any shape `[...]`, in a grid of `width` columns.

    This uses no remainder operator, because the exporter has none for symbolic widths.
    """
    row = torch.div(cells, width, rounding_mode="floor")
    return row, cells - row * width


def similarity(x0: Tensor, x1: Tensor, temperature: float, mask0: Tensor | None, mask1: Tensor | None) -> Tensor:
    """Scaled dot products `[B,L,S]` of x0 `[B,L,C]` and x1 `[B,S,C]`; pairs with padding get -1e9."""
    scale = x0.shape[2] ** 0.5
    scores = (x0 / scale) @ (x1 / scale).transpose(1, 2) / temperature
    if mask0 is not None and mask1 is not None:
        # Two vectors instead of a mask of all pairs, which would be as large as the scores.
        scores = scores + _penalty(mask0, scores.dtype)[:, :, None] + _penalty(mask1, scores.dtype)[:, None, :]
    return scores


def _penalty(mask: Tensor, dtype: torch.dtype) -> Tensor:
    return (~mask).to(dtype) * MASKED


def comparable(
    x0: Tensor, x1: Tensor, temperature: float, mask0: Tensor | None, mask1: Tensor | None
) -> tuple[Tensor, Tensor]:
    """x0 `[B,L,C]` and x1 `[B,S,C]` so that `x0 @ x1.T` and `x1 @ x0.T` are their `similarity` and its transpose.

    Padding enters as channels of the product, which add PADDING, or twice that. A mask, even as two vectors, would cost
    a pass over all L*S values. There are eight channels, because products in half precision run best with multiples of
    eight.
    """
    x0 = x0 * (1.0 / (x0.shape[2] * temperature))
    if mask0 is None or mask1 is None:
        return x0, x1
    outside0, outside1 = ((~mask)[:, :, None].to(x0.dtype) for mask in (mask0, mask1))
    one0, one1 = torch.ones_like(outside0), torch.ones_like(outside1)
    rest0, rest1 = (torch.zeros_like(one).expand(-1, -1, 6) for one in (one0, one1))
    return torch.cat([x0, outside0 * PADDING, one0, rest0], 2), torch.cat([x1, one1, outside1 * PADDING, rest1], 2)


def dual_softmax(scores: Tensor) -> Tensor:
    """Confidence `[B,L,S]`: softmax over the rows times softmax over the columns (Rocco et al., NeurIPS 2018)."""
    return scores.softmax(dim=1) * scores.softmax(dim=2)


class Confidence(Protocol):
    """The confidence of all pairs of cells, kept as values of the same order, because most of them are never needed."""

    @property
    def order(self) -> Tensor:
        """Float `[B,L,S]`, which grows with the confidence."""
        ...

    def value_of(self, order: Tensor) -> Tensor:
        """Confidences in 0..1 of values of `order`, of any shape."""
        ...

    def best_of_rows(self) -> tuple[Tensor, Tensor]:
        """For each cell of image 0 the largest value of `order` `[B,L]`, and its cell of image 1, int64 `[B,L]`."""
        ...

    def mutual(self, best: Tensor, best1: Tensor) -> Tensor:
        """Bool `[B,L]`: whether each cell of image 0 is the best one of its best cell; from `best_of_rows`."""
        ...


@dataclass(frozen=True)
class TwoProducts:
    """Confidences of a similarity that was computed twice, once transposed, so that all reductions are of rows.

    order: float `[B,L,S]`; it grows with the confidence.
    best0: int64 `[B,S]`, the best cell of image 0 for each cell of image 1.
    value: computes confidences in 0..1 from values of `order`.
    """

    order: Tensor
    best0: Tensor
    value: Callable[[Tensor], Tensor]

    def value_of(self, order: Tensor) -> Tensor:
        """See `Confidence`."""
        return self.value(order)

    def best_of_rows(self) -> tuple[Tensor, Tensor]:
        """See `Confidence`."""
        best, best1 = self.order.max(dim=2)
        return best, best1

    def mutual(self, best: Tensor, best1: Tensor) -> Tensor:
        """See `Confidence`. It compares cells and not values: rows and columns come from kernels that round apart."""
        rows = torch.arange(best1.shape[1], device=best1.device)
        return self.best0.gather(1, best1) == rows[None]


def fast_dual_softmax(scores: Tensor, transposed: Tensor) -> TwoProducts:
    """`dual_softmax` of `scores [B,L,S]`, with `transposed [B,S,L]` computed beside it from the same features.

    This computes its logarithm, 2 s - lse_row - lse_column, with every reduction along the last axis. A softmax along
    the first axis makes GPUs read a matrix of 4800 x 4800 across its rows, which cost more than the rest of the
    matching.
    """
    # Stored, or their logarithms are computed for every pair of cells.
    rows, columns = stored(log_sum_exp(scores)), stored(log_sum_exp(transposed))
    best0 = (2 * transposed - rows[:, None, :]).argmax(dim=2)
    return TwoProducts(2 * scores - rows[:, :, None] - columns[:, None, :], best0, torch.exp)


def log_sum_exp(scores: Tensor) -> Tensor:
    """The logarithm of the sum of exponentials over the last axis: `[...,N] -> [...]`.

    The maximum is taken out here, because engines need not do so in an operator of that name.
    """
    most = scores.amax(dim=-1)
    return most + (scores - most[..., None]).exp().sum(dim=-1).log()


class CoarseScores(nn.Module):
    """The confidence between the cells of both images. It is a module, so that its nodes have its name in a graph.

    narrow: see `CoarseMatchConfig`.
    softmax: False is EfficientLoFTR's optimised configuration. Its confidence is s / (s + 25) of the similarity s: from
        0 to 1, and 0.5 at the authors' threshold.
    """

    def __init__(self, temperature: float, narrow: bool = False, softmax: bool = True) -> None:
        super().__init__()
        self.temperature = temperature
        self.narrow = narrow
        self.softmax = softmax

    def forward(
        self, x0: Tensor, x1: Tensor, widths: tuple[int, int], mask0: Tensor | None = None, mask1: Tensor | None = None
    ) -> Confidence:
        """The confidence of the cells x0 `[B,L,C]` and x1 `[B,S,C]`.

        widths: columns of the grids of both images.
        mask0, mask1: bool `[B,L]`, `[B,S]`, False for padding; None if there is none.

        A dynamic graph, whose sizes the exporter does not know, is the one that runs on CPUs: it computes the
        similarity once, if that is `narrow`. A static one is made for GPUs, which compute a second product faster than
        they read the first one across its rows.
        """
        first, second = comparable(x0, x1, self.temperature, mask0, mask1)
        scores = first @ second.transpose(1, 2)
        if self.softmax and self.narrow and not isinstance(x0.shape[1], int):
            return OneProduct.of(scores, widths)
        transposed = second @ first.transpose(1, 2)
        if self.softmax:
            return fast_dual_softmax(scores, transposed)
        return TwoProducts(scores, transposed.argmax(dim=2), _saturating)


def _saturating(similarity: Tensor) -> Tensor:
    positive = similarity.clamp(min=0.0)
    return positive / (positive + SATURATING_SIMILARITY)


def select_matches(
    confidence: Confidence, grid0: Grid, grid1: Grid, config: CoarseMatchConfig, max_matches: int
) -> CoarseMatches:
    """The `max_matches` most confident matches that pass threshold, border and mutual test.

    The best column of a row decides, as in the official code: a row whose best cell is in the border has no match.
    """
    order, best1 = confidence.best_of_rows()
    score, cells0 = confidence.value_of(order), order.shape[1]
    keep = score > config.threshold
    if config.mutual:
        keep = keep & confidence.mutual(order, best1)
    interior1 = grid1.interior(config.border, score.device).expand(score.shape[0], -1)
    keep = keep & grid0.interior(config.border, score.device) & interior1.gather(1, best1)
    score = torch.where(keep, score, torch.zeros_like(score))
    # Zero slots after the cells keep top-K valid for an image with fewer than K cells.
    score = torch.cat([score, score.new_zeros(score.shape[0], max_matches)], dim=1)
    scores, index0 = score.topk(max_matches, dim=1)
    index0 = index0.clamp(max=cells0 - 1)
    return CoarseMatches(index0, best1.gather(1, index0), scores)


def select_pairs(
    confidence: Confidence, grid0: Grid, grid1: Grid, config: CoarseMatchConfig, max_matches: int
) -> CoarseMatches:
    """The `max_matches` most confident of all pairs that pass threshold and border.

    A cell may have several matches. The result is exact, and two steps avoid sorting all pairs. A run is a cell of
    image 0 with one row of image 1's grid; each of the K best pairs is in one of the K runs with the largest maxima.
    """
    values = confidence.value_of(confidence.order)
    batch, cells0, _ = values.shape
    rows, length = grid1.height, grid1.width
    interior0 = grid0.interior(config.border, values.device)[:, :, None]
    interior1 = grid1.interior(config.border, values.device)[:, None, :]
    runs = (values * (interior0 & interior1).to(values.dtype)).reshape(batch, cells0 * rows, length)
    best = runs.amax(dim=2)
    # Zero slots after the runs keep top-K valid if there are fewer than K.
    best, run = torch.cat([best, best.new_zeros(batch, max_matches)], dim=1).topk(max_matches, dim=1)
    run = run.clamp(max=cells0 * rows - 1)
    first = torch.arange(batch, device=run.device)[:, None] * (cells0 * rows)
    candidates = F.embedding(run + first, runs.flatten(0, 1)) * (best > 0).to(best.dtype)[:, :, None]
    scores, chosen = candidates.flatten(1).topk(max_matches, dim=1)
    slot, column = rows_and_columns(chosen, length)
    # The division comes only here, where numbers are small: the exporter divides integers in float32.
    index0, row = rows_and_columns(run.gather(1, slot), rows)
    scores = torch.where(scores > config.threshold, scores, torch.zeros_like(scores))
    return CoarseMatches(index0, row * length + column, scores)
