"""Dual-softmax matching of coarse cells with static shapes: top-K instead of NonZero."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matchrt.models.parts.config import CoarseMatchConfig
from matchrt.models.parts.masks import MASKED, PADDING

# Without the softmax, the authors of EfficientLoFTR take matches whose similarity is above this.
SATURATING_SIMILARITY = 25.0
# The largest similarity of a pair of images becomes this before exponentials: sums of 65536 of them stay below 1e31.
HEADROOM = 60.0
# The smallest sum of exponentials, whose logarithm is finite.
SMALLEST_SUM = 1e-37
# The difference of two values of `Confidence.comparable` that counts as rounding: 0.006 % of a confidence.
TIE = 3e-5


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
    x0: Tensor, x1: Tensor, temperature: float, mask0: Tensor | None, mask1: Tensor | None, shift: bool = True
) -> tuple[Tensor, Tensor]:
    """x0 `[B,L,C]` and x1 `[B,S,C]` so that `x0 @ x1.T` is their `similarity`, with `shift` less one number for each B.

    That number is the largest similarity that the lengths of the features allow, less `HEADROOM`: no exponential of a
    difference can overflow.
    It enters as a channel of the product, and so does padding, which adds PADDING, or twice that. A mask, even as two
    vectors, or a number, would cost a pass over all L*S values. There are eight channels, because products in half
    precision run best with multiples of eight.
    """
    x0 = x0 * (1.0 / (x0.shape[2] * temperature))
    channels0, channels1 = [], []
    if shift:
        squares0, squares1 = (x.square().sum(dim=2).amax(dim=1) for x in (x0, x1))
        less = HEADROOM - (squares0 * squares1).sqrt()
        channels0.append(less[:, None, None].expand(-1, x0.shape[1], 1))
        channels1.append(torch.ones_like(x1[:, :, :1]))
    if mask0 is not None and mask1 is not None:
        outside0, outside1 = ((~mask)[:, :, None].to(x0.dtype) for mask in (mask0, mask1))
        channels0 += [outside0 * PADDING, torch.ones_like(outside0)]
        channels1 += [torch.ones_like(outside1), outside1 * PADDING]
    if not channels0:
        return x0, x1
    rest0, rest1 = (x.new_zeros(1, 1, 1).expand(*x.shape[:2], 8 - len(channels0)) for x in (x0, x1))
    return torch.cat([x0, *channels0, rest0], 2), torch.cat([x1, *channels1, rest1], 2)


def dual_softmax(scores: Tensor) -> Tensor:
    """Confidence `[B,L,S]`: softmax over the rows times softmax over the columns (Rocco et al., NeurIPS 2018)."""
    return scores.softmax(dim=1) * scores.softmax(dim=2)


@dataclass(frozen=True)
class Confidence:
    """The confidence of all pairs of cells, kept as values of the same order, because most of them are never needed.

    similarity: float `[B,L,S]`.
    rows: float `[B,L]`, columns: float `[B,S]`; `similarity - rows[:, :, None] - columns[:, None, :]` grows with the
        confidence. None for zeros.
    value_of: computes confidences in 0..1 from values of that difference.
    width0, width1: columns of the grids of both images.
    """

    similarity: Tensor
    rows: Tensor | None
    columns: Tensor | None
    value_of: Callable[[Tensor], Tensor]
    width0: int
    width1: int

    @property
    def within_rows(self) -> Tensor:
        """Float `[B,L,S]`, growing with the confidence within a row."""
        return self.similarity if self.columns is None else self.similarity - self.columns[:, None, :]

    @property
    def comparable(self) -> Tensor:
        """Float `[B,L,S]`, growing with the confidence."""
        return self.within_rows if self.rows is None else self.within_rows - self.rows[:, :, None]

    @property
    def values(self) -> Tensor:
        """The confidence of all pairs, `[B,L,S]`."""
        return self.value_of(self.comparable)

    def best_of_rows(self) -> tuple[Tensor, Tensor]:
        """For each cell of image 0 the largest value of `comparable` `[B,L]`, and its cell of image 1, int64 `[B,L]`.

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
        if self.columns is not None:
            first = torch.arange(batch, device=row.device)[:, None] * height
            cells = cells - F.embedding(row + first, self.columns.reshape(-1, width))
        value, column = (found[:, :, 0] for found in cells.topk(1, dim=2))
        return (value if self.rows is None else value - self.rows), row * width + column

    def best_of_columns(self) -> Tensor:
        """For each cell of image 1 the largest value of `comparable`: `[B,S]`.

        There are two steps, each over an axis in the middle, which all engines reduce row by row. A reduction of the
        whole axis takes ONNX Runtime ten times as long.
        """
        batch, _, cells1 = self.similarity.shape
        return self.comparable.reshape(batch, -1, self.width0, cells1).amax(2).amax(1)


def log_sums(scores: Tensor) -> tuple[Tensor, Tensor]:
    """The logarithms `[...,L]` and `[...,S]` of the sums of exponentials of `scores [...,L,S]`, at most `HEADROOM`.

    The exponentials are computed once, for rows and columns, and no maximum of a row is subtracted. An exponential is
    zero where a similarity is 147 below `HEADROOM`. A row or column of nothing else gets a sum that is too large, hence
    confidences that are too small. Any other is exact. The sum of columns is a product, which reads memory row by row.
    """
    exponentials = scores.exp()
    columns = (scores.new_ones(1, scores.shape[-2]) @ exponentials)[..., 0, :]
    rows, columns = (x.clamp(min=SMALLEST_SUM).log() for x in (exponentials.sum(dim=-1), columns))
    return rows, columns


def shifted(scores: Tensor) -> Tensor:
    """`scores [...,L,S]` less one number for each matrix, so that the largest becomes zero."""
    return scores - scores.amax(dim=-1).amax(dim=-1)[..., None, None]


def fast_dual_softmax(scores: Tensor, width0: int, width1: int) -> Confidence:
    """`dual_softmax` of `scores [B,L,S]`, which are at most `HEADROOM`; width0, width1: columns of the grids.

    It computes half of the logarithm of the confidence, s - lse_row / 2 - lse_column / 2, so that no pass over all
    pairs is needed to double the similarity.
    """
    rows, columns = log_sums(scores)
    return Confidence(scores, rows / 2, columns / 2, _of_half_logarithms, width0, width1)


def _of_half_logarithms(order: Tensor) -> Tensor:
    return (2 * order).exp()


class CoarseScores(nn.Module):
    """The confidence between the cells of both images. It is a module, so that its nodes have its name in a graph.

    softmax: False is EfficientLoFTR's optimised configuration. Its confidence is s / (s + 25) of the similarity s: from
        0 to 1, and 0.5 at the authors' threshold.
    """

    def __init__(self, temperature: float, softmax: bool = True) -> None:
        super().__init__()
        self.temperature = temperature
        self.softmax = softmax

    def forward(
        self, x0: Tensor, x1: Tensor, widths: tuple[int, int], mask0: Tensor | None = None, mask1: Tensor | None = None
    ) -> Confidence:
        """The confidence of the cells x0 `[B,L,C]` and x1 `[B,S,C]`.

        widths: columns of the grids of both images.
        mask0, mask1: bool `[B,L]`, `[B,S]`, False for padding; None if there is none.
        """
        first, second = comparable(x0, x1, self.temperature, mask0, mask1, self.softmax)
        scores = first @ second.transpose(1, 2)
        return (
            fast_dual_softmax(scores, *widths) if self.softmax else Confidence(scores, None, None, _saturating, *widths)
        )


def _saturating(similarity: Tensor) -> Tensor:
    positive = similarity.clamp(min=0.0)
    return positive / (positive + SATURATING_SIMILARITY)


def select_matches(
    confidence: Confidence, grid0: Grid, grid1: Grid, config: CoarseMatchConfig, max_matches: int
) -> CoarseMatches:
    """The `max_matches` most confident matches that pass threshold, border and mutual test.

    A match is mutual if its confidence is the largest of its column. Engines may compute the maxima of rows and of
    columns in kernels that round differently, so `TIE` is allowed between them.
    The best column of a row decides, as in the official code: a row whose best cell is in the border has no match.
    """
    order, best1 = confidence.best_of_rows()
    score, cells0 = confidence.value_of(order), order.shape[1]
    keep = score > config.threshold
    if config.mutual:
        keep = keep & (order >= confidence.best_of_columns().gather(1, best1) - TIE)
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
    values = confidence.values
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
