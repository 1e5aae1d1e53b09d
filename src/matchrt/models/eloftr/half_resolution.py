"""A refinement on the half-resolution map, for networks that run on CPUs: eloftr-lite's.

EfficientLoFTR compares all 64 x 100 pixels of two matched cells, for which it enlarges the map; at 2048 matches that
costs a CPU as much as the whole backbone. Here a cell is its 4 x 4 pixels of the map itself, which lie around the
cell's point: 16 x 36 comparisons. The second stage takes the expectation among the 3 x 3 pixels around the chosen one.

Points: a pixel (x, y) of the map is the point (2 x, 2 y) of the image, and a cell (x, y) is the point (8 x, 8 y): both
are the middles of what convolutions with a stride of 2 and a padding of 1 see. x right, y down.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matchrt.models.eloftr.fine import both_of, picked
from matchrt.models.parts.coarse_matching import rows_and_columns
from matchrt.models.parts.coarse_matching_once import SMALLEST_SUM
from matchrt.models.parts.constants import constant
from matchrt.models.parts.stored import stored_integers

STRIDE = 2  # image pixels along a side of a map's pixel
CELL = 4  # map pixels along a side of a cell
BEFORE = 2  # of which so many lie before the cell's point
SIDE = CELL + 2  # with a margin of one


def windows(features: Tensor, cells: Tensor, grid_width: int, margin: int, store: bool) -> Tensor:
    """The pixels of the cells `[B,K]` in `features [B,C,H/2,W/2]` -> `[B,K,(4+2*margin)^2,C]`, edges repeated.

    store: whether the pixels' numbers are stored, for GPUs; see `fine.half_windows`.
    """
    batch, channels, height, width = features.shape
    flat = features.permute(0, 2, 3, 1).reshape(-1, channels)
    row, column = rows_and_columns(cells, grid_width)
    offset = torch.arange(CELL + 2 * margin, device=cells.device) - BEFORE - margin
    rows = (row[:, :, None] * CELL + offset).clamp(0, height - 1)
    columns = (column[:, :, None] * CELL + offset).clamp(0, width - 1)
    index = (rows[:, :, :, None] * width + columns[:, :, None, :]).flatten(2)
    if store:
        index = stored_integers(index).long()
    if not isinstance(batch, int) or batch > 1:
        index = index + torch.arange(batch, device=cells.device)[:, None, None] * (height * width)
    return F.embedding(index, flat)


def window_order(window0: Tensor, window1: Tensor, regress: int, margin: bool = True) -> Tensor:
    """First stage: logarithms `[B,K,16,36]` of the confidence between the pixels of both cells.

    window0 `[B,K,16,C]`, window1 `[B,K,36,C]`: its margin counts in the softmax. The last `regress` channels do not.
    margin: False puts the margin's pixels last, which costs less than cutting them out.
    """
    used = window0.shape[3] - regress
    scores = (window0 * _channel_weights(window0, used, used**-0.5, 0.0)) @ window1.transpose(2, 3)
    # One maximum for each pair of cells, so that one pass of exponentials serves rows and columns. A row or column of
    # values that are all 87 below it gets a sum that is too large, hence confidences that are too small.
    moved = scores - scores.amax(dim=(2, 3), keepdim=True)
    exponentials = moved.exp()
    rows, columns = (exponentials.sum(dim=axis, keepdim=True).clamp(min=SMALLEST_SUM).log() for axis in (3, 2))
    if not margin:
        columns = columns + _last_of_margin(columns)
    return 2 * moved - rows - columns


def _last_of_margin(like: Tensor) -> Tensor:
    """`[36]`: 0 for the pixels of a cell, and for those of its margin more than any logarithm."""
    inside = range(1, SIDE - 1)
    values = [0.0 if row in inside and column in inside else 1e9 for row in range(SIDE) for column in range(SIDE)]
    return constant(values, like)


def _channel_weights(window: Tensor, used: int, first: float, rest: float) -> Tensor:
    """`[C]`: one value for the first `used` channels, another for the rest. To cut channels out would cost more."""
    return constant([first] * used + [rest] * (window.shape[3] - used), window)


def neighbourhood_offset(
    window0: Tensor, window1: Tensor, pixel0: Tensor, row1: Tensor, column1: Tensor, regress: int
) -> Tensor:
    """Second stage: the expected offset (x, y) in -1..1 map pixels, `[B,K,2]`, among 3 x 3 pixels of image 1.

    pixel0 int64 `[B,K]`: the chosen pixel of the 16. row1, column1 int64 `[B,K]`: the middle of the 3 x 3 pixels in the
    6 x 6 window, 1..4.
    """
    step = torch.arange(3, device=row1.device) - 1
    index = ((row1[:, :, None] + step)[:, :, :, None] * SIDE + (column1[:, :, None] + step)[:, :, None, :]).flatten(2)
    weights = _channel_weights(window0, window0.shape[3] - regress, 0.0, regress**-0.5)
    point = picked(window0, pixel0[:, :, None]) * weights
    scores = (picked(window1, index) * point).sum(dim=3)
    line = step.to(window0.dtype)
    grid = torch.stack([line.repeat(3), line.repeat_interleave(3)], dim=1)
    return scores.softmax(dim=2) @ grid


class HalfWindows(nn.Module):
    """Cuts the matched cells out of the maps. A module without weights, for its name in a graph.

    stored: see `windows`; None does so in graphs of fixed size, which are made for GPUs.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stored: bool | None = None

    def forward(self, fine: list[Tensor], cells: list[Tensor], widths: list[int]) -> tuple[Tensor, Tensor]:
        """Maps `[B,C,H/2,W/2]`, cells `[B,K]`, grid widths -> `[B,K,16,C]` of image 0, `[B,K,36,C]` of image 1."""
        map0, map1 = both_of(fine)
        cells0, cells1 = both_of(cells)
        store = isinstance(map0.shape[2], int) if self.stored is None else self.stored
        store = store and not self.training
        return windows(map0, cells0, widths[0], 0, store), windows(map1, cells1, widths[-1], 1, store)


class HalfMatching(nn.Module):
    """Both stages of the refinement. A module without weights, for its name in a graph."""

    def __init__(self, regress: int) -> None:
        super().__init__()
        self.regress = regress

    def forward(self, window0: Tensor, window1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Offsets from the cells' points, pixels `[B,K,2]` (x, y), of images 0 and 1; and the margin `[B,K]`."""
        order = window_order(window0, window1, self.regress, margin=False).flatten(2)
        pixel0, pixel1 = rows_and_columns(order.argmax(dim=2), SIDE * SIDE)
        best = order.topk(2, dim=2).values  # engines have no margin, so their graphs have no such top-K either
        margin = 1.0 - (best[..., 1] - best[..., 0]).exp()
        row0, column0 = rows_and_columns(pixel0, CELL)
        row1, column1 = rows_and_columns(pixel1, SIDE)
        offset = neighbourhood_offset(window0, window1, pixel0, row1, column1, self.regress)
        return point_of(row0, column0), point_of(row1 - 1, column1 - 1) + STRIDE * offset, margin


def point_of(row: Tensor, column: Tensor) -> Tensor:
    """The point (x, y) float32 `[B,K,2]` of a cell's pixel (0..3) in image pixels from the cell's own point."""
    return STRIDE * (torch.stack([column, row], dim=2).to(torch.float32) - BEFORE)
