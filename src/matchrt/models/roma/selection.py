"""K matches of a dense warp, spread over the images: deterministic and of static shape.

The official sampler draws at random by certainty and inverse density, which no engine can do; it is in `runtime.dense`.
Here each direction's pixels are cut into square cells. The most certain pixel of a cell represents it, and the K most
certain cells are taken, so each cell gives at most one match in a direction.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from matchrt.models.parts.coarse_matching import rows_and_columns
from matchrt.models.parts.match_tensors import MatchTensors, finished
from matchrt.models.roma.grid import to_pixels
from matchrt.models.roma.network import DenseMatches

# Cells for each match slot: if half of the image is certain, it still fills all slots.
CELLS_PER_MATCH = 2


def cell_side(height: int, width: int, max_matches: int) -> int:
    """The largest side of square cells that tile height x width and are numerous enough; 1 if there is none.

    Enough are `CELLS_PER_MATCH * max_matches` cells. Sides are in pixels.
    """
    common = math.gcd(height, width)
    sides = [side for side in range(1, common + 1) if common % side == 0]
    enough = [s for s in sides if (height // s) * (width // s) >= CELLS_PER_MATCH * max_matches]
    return max(enough, default=1)


def select_dense(dense: DenseMatches, max_matches: int, threshold: float, symmetric: bool) -> MatchTensors:
    """The K = `max_matches` most certain matches of `dense` with a certainty above `threshold`, one for each cell.

    Keypoints `[B,K,2]` are pixels of the two images at the warp's resolution, pixel centres at integers.
    """
    height, total = dense.certainty.shape[1:]
    width = total // 2 if symmetric else total
    side = cell_side(height, total, max_matches) if not symmetric else cell_side(height, width, max_matches // 2)
    score, index = _best_of_cells(dense.certainty, side)
    score = torch.where(score > threshold, score, torch.zeros_like(score))
    # Zero slots after the cells keep top-K valid if there are fewer than K cells.
    score = torch.cat([score, score.new_zeros(score.shape[0], max_matches)], dim=1)
    index = torch.cat([index, index.new_zeros(index.shape[0], max_matches)], dim=1)
    scores, chosen = score.topk(max_matches, dim=1)
    pixel = index.gather(1, chosen)
    picked = dense.warp.flatten(1, 2).gather(1, pixel[:, :, None].expand(-1, -1, 4))
    x0, y0, x1, y1 = picked.float().unbind(2)
    keypoints0 = torch.stack([to_pixels(x0, width), to_pixels(y0, height)], dim=2)
    keypoints1 = torch.stack([to_pixels(x1, width), to_pixels(y1, height)], dim=2)
    return finished(keypoints0, keypoints1, scores)


def _best_of_cells(certainty: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """`[B,H,W]` -> the largest value of each cell and its index in the flattened map, `[B, H/side * W/side]`."""
    batch, height, width = certainty.shape
    rows, columns = height // side, width // side
    cells = certainty.reshape(batch, rows, side, columns, side).transpose(2, 3).reshape(batch, rows * columns, -1)
    # The argument and then its value: the only operator of engines that gives both is top-K, which sorts.
    best = cells.argmax(dim=2)
    score = cells.gather(2, best[:, :, None])[:, :, 0]
    cell = torch.arange(rows * columns, device=certainty.device)[None]
    row, column = rows_and_columns(cell, columns)
    inner_row, inner_column = rows_and_columns(best, side)
    return score, (row * side + inner_row) * width + column * side + inner_column
