"""Scales from ranges, and weights in 8 bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from matchrt.families.rules import Kind

FloatArray = npt.NDArray[np.float32]
# e4m3 without infinities: largest finite value.
FP8_MAX = 448.0
# The product of two such scales, the unit of a bias, is still an ordinary float32.
_SMALLEST_SCALE = 2.0**-24


@dataclass(frozen=True)
class Affine:
    """How an 8-bit number q represents a real one: real = scale * (q - zero).

    scale: float32; a scalar for an activation, [C] for a weight of C output channels.
    zero: the zero point, with the shape of `scale` and the type of q.
    """

    scale: FloatArray
    zero: npt.NDArray[np.generic]


def activation_affine(low: float, high: float, kind: Kind) -> Affine:
    """Scale and zero point of one tensor whose values are in low..high. Raises nothing.

    int8 and fp8 have the zero point 0, which TensorRT demands. With uint8 the range always contains 0, so that padding
    is exact.
    """
    most = max(abs(low), abs(high))
    if kind == "int8":
        return Affine(_scales(np.float32(most / 127.0)), np.int8(0).reshape(()))
    if kind == "fp8":
        return Affine(_scales(np.float32(most / FP8_MAX)), np.zeros((), _float8()))
    low, high = min(low, 0.0), max(high, 0.0)
    scale = _scales(np.float32((high - low) / 255.0))
    return Affine(scale, np.uint8(np.clip(np.rint(-low / scale), 0, 255)).reshape(()))


def quantize_weight(values: FloatArray, axis: int, kind: Kind) -> tuple[npt.NDArray[np.generic], Affine]:
    """A weight in int8 (-127..127) or float8, symmetric for each output channel, and its scales [C]. Raises nothing.

    values: float32 of any shape. axis: the one of the output channels. A channel of zeros gets the smallest scale.
    """
    others = tuple(a for a in range(values.ndim) if a != axis)
    most = np.abs(values).max(axis=others)
    scale = _scales(most / np.float32(FP8_MAX if kind == "fp8" else 127.0))
    along = scale.reshape([-1 if a == axis else 1 for a in range(values.ndim)])
    if kind == "fp8":
        return (values / along).astype(_float8()), Affine(scale, np.zeros(scale.shape, _float8()))
    whole = np.clip(np.rint(values / along), -127, 127).astype(np.int8)
    return whole, Affine(scale, np.zeros(scale.shape, np.int8))


def quantize_bias(
    bias: FloatArray, input_scale: FloatArray, weight_scale: FloatArray
) -> tuple[npt.NDArray[np.int32], FloatArray]:
    """A bias [C] as int32 in units of the accumulator, and those units [C]. Raises nothing."""
    unit = (input_scale * weight_scale).astype(np.float32)
    limit = np.float64(2**31 - 1)
    return np.clip(np.rint(bias.astype(np.float64) / unit), -limit, limit).astype(np.int32), unit


def _float8() -> np.dtype[np.generic]:
    """The dtype of e4m3 without infinities. The package ml_dtypes is a dependency of onnx."""
    import ml_dtypes

    found: np.dtype[np.generic] = np.dtype(ml_dtypes.float8_e4m3fn)
    return found


def _scales(values: npt.ArrayLike) -> FloatArray:
    """Scales as float32, none of which is 0."""
    result: FloatArray = np.maximum(np.asarray(values, np.float32), np.float32(_SMALLEST_SCALE))
    return result
