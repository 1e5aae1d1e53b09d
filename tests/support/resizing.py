"""The passes of `runtime.resize_weights`, applied with NumPy in float32 as a GPU would."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from matchrt.manifest import Kernel
from matchrt.runtime.resize_weights import AxisPass, resize_passes


def resized_by_weights(pixels: npt.NDArray[np.uint8], target_hw: tuple[int, int], kernel: Kernel) -> npt.NDArray[Any]:
    """uint8 `[H, W]` or `[H, W, C]`, resized to uint8 `[*target_hw, C]`, or without C if it had none."""
    values = pixels.astype(np.float32)
    for step in resize_passes(pixels.shape[:2], target_hw, kernel):
        values = _rounded(_summed(values, step), step)
    return values.astype(np.uint8)


def _summed(values: npt.NDArray[Any], step: AxisPass) -> npt.NDArray[Any]:
    moved = values if step.axis == "rows" else values.swapaxes(0, 1)
    if step.rounding == "quarters":
        moved = np.floor(moved * 128) / 128
    total = np.zeros((len(step.taps.first), *moved.shape[1:]), np.float32)
    for column in range(step.taps.weights.shape[1]):
        weight = step.taps.weights[:, column].astype(np.float32).reshape(-1, *(1,) * (moved.ndim - 1))
        product = moved[step.taps.first + column] * weight
        total += np.floor(product * 4) / 4 if step.rounding == "quarters" else product
    return total if step.axis == "rows" else total.swapaxes(0, 1)


def _rounded(values: npt.NDArray[Any], step: AxisPass) -> npt.NDArray[Any]:
    if step.rounding == "none":
        return values
    whole = np.rint(values) if step.rounding == "half-even" else np.floor(values + np.float32(0.5))
    return np.clip(whole, 0, 255)
