"""LoFTR's position encodings (section 3.3)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sine_frequencies(d_model: int, fixed_divisor: bool) -> Tensor:
    """`[d_model/4]` angular frequencies per cell of the 2-D sine encoding (LoFTR, section 3.3).

    The formula is `10000^(-k / (d_model/2))`, k = 0, 2, ... The published checkpoints were trained with
    `-log(10000) / d_model // 2`, which floors to -1, hence `exp(-k)`; `fixed_divisor=False` reproduces that.
    """
    k = torch.arange(0, d_model // 2, 2, dtype=torch.float32)
    rate = -math.log(10000.0) / (d_model // 2) if fixed_divisor else float(-math.log(10000.0) / d_model // 2)
    return torch.exp(k * rate)


def sine_encoding(height: int, width: int, frequencies: Tensor) -> Tensor:
    """`[1, 4F, height, width]`: channels 4f..4f+3 are sin x, cos x, sin y, cos y; positions start at 1.

    It is built from two small 1-D tables, so that a graph with dynamic sizes needs no stored grid.
    """
    x = torch.arange(1, width + 1, dtype=torch.float32, device=frequencies.device)
    y = torch.arange(1, height + 1, dtype=torch.float32, device=frequencies.device)
    phase_x = (frequencies[:, None] * x[None])[:, None, :].expand(-1, height, -1)
    phase_y = (frequencies[:, None] * y[None])[:, :, None].expand(-1, -1, width)
    table = torch.stack([phase_x.sin(), phase_x.cos(), phase_y.sin(), phase_y.cos()], dim=1)
    return table.reshape(1, 4 * frequencies.shape[0], height, width)
