"""LoFTR's position encoding, as in `matchrt.models.loftr.position`."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


def sine_frequencies(d_model: int, fixed_divisor: bool) -> Floats:
    """`[d_model/4]` angular frequencies per cell of the 2-D sine encoding (LoFTR, section 3.3).

    The formula is `10000^(-k / (d_model/2))`, k = 0, 2, ... The published checkpoints were trained with
    `-log(10000) / d_model // 2`, which floors to -1, hence `exp(-k)`; `fixed_divisor=False` reproduces that.
    """
    k = np.arange(0, d_model // 2, 2, dtype=np.float32)
    rate = -math.log(10000.0) / (d_model // 2) if fixed_divisor else float(-math.log(10000.0) / d_model // 2)
    return np.exp(k * np.float32(rate)).astype(np.float32)


def sine_encoding(height: int, width: int, frequencies: Floats) -> Floats:
    """`[1, height, width, 4F]`: channels 4f..4f+3 are sin x, cos x, sin y, cos y; positions start at 1.

    Sizes are static under jit, so the table is a constant of the program.
    """
    shape = (height, width, frequencies.shape[0])
    x = np.broadcast_to((np.arange(1, width + 1, dtype=np.float32)[:, None] * frequencies)[None], shape)
    y = np.broadcast_to((np.arange(1, height + 1, dtype=np.float32)[:, None] * frequencies)[:, None], shape)
    table = np.stack([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=3)
    return table.reshape(1, height, width, 4 * frequencies.shape[0])
