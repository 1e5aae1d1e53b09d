"""Rotary position encoding in two dimensions (RoFormer, Su et al. 2021; EfficientLoFTR, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor

# Positions that a table holds along one axis; 32 pixels each, so images of up to 8192 pixels a side.
MAX_POSITIONS = 256


def rotary_axis(d_model: int, scale: float) -> tuple[Tensor, Tensor]:
    """Sine and cosine of one axis, `[MAX_POSITIONS, d_model/4]`: position p (from 1) times `scale` times frequency k.

    The frequency is `10000^(-k / (d_model/4))`. Values are rounded to half precision, as the official code stores them.
    """
    k = torch.arange(d_model // 4, dtype=torch.float32)
    frequencies = torch.exp(k * (-torch.log(torch.tensor(10000.0)) / (d_model // 4)))
    phase = (torch.arange(1, MAX_POSITIONS + 1, dtype=torch.float32) * scale)[:, None] * frequencies
    return phase.sin().half().float(), phase.cos().half().float()


def rotary_table(axis: Tensor, height: int, width: int) -> Tensor:
    """`[1, height*width, d_model]` of an axis table: channels 4k, 4k+1 follow the row, 4k+2, 4k+3 the column."""
    quarter = axis.shape[1]
    rows = axis[:height, None, :, None].expand(height, width, quarter, 2)
    columns = axis[None, :width, :, None].expand(height, width, quarter, 2)
    return torch.cat([rows, columns], dim=3).reshape(1, height * width, 4 * quarter)


def rotated_rows(weight: Tensor) -> Tensor:
    """The projection `[D, C]` whose output is that of `weight` with each pair (a, b) of channels turned to (-b, a).

    The rotary encoding of y = weight x is y cos + turned(y) sin. Turning the weights instead of the activations gives
    the same numbers and leaves nothing to shuffle at run time.
    """
    pairs = weight.reshape(-1, 2, weight.shape[1])
    return torch.stack([-pairs[:, 1], pairs[:, 0]], dim=1).reshape(weight.shape)
