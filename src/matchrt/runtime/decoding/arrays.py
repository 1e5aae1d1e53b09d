"""Arrays, tensors and other objects that hold pixels, as values."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from matchrt.errors import MatchRTError
from matchrt.runtime.decoding.values import Values

_WHITE = {"u1": 255.0, "u2": 65535.0}


def as_array(value: object, name: str) -> npt.NDArray[Any]:
    """An array [H, W] or [H, W, 3] of any type from what users pass as an image. Error: image-array.

    value: [H, W], [H, W, 1], [H, W, 3] or [H, W, 4] as a numpy array, a memoryview, a tensor in host memory, or an
        object with `__array__` or `__array_interface__`. The fourth channel is left out.
    """
    return _drop_extra_channels(_as_array(value, name), name)


def with_alpha(value: object, name: str) -> npt.NDArray[Any]:
    """As `as_array`, but a fourth channel stays: [H, W], [H, W, 3] or [H, W, 4]. Error: image-array."""
    array = _as_array(value, name)
    kept = _drop_extra_channels(array, name)
    return array if kept.ndim == 3 else kept


def values_of(array: npt.NDArray[Any], name: str) -> Values:
    """The values of an array [H, W] or [H, W, C], in any byte order. Error: image-array for a type that is not read."""
    kind = f"{array.dtype.kind}{array.dtype.itemsize}"
    if kind in _WHITE:
        return Values(array.astype(array.dtype.newbyteorder("="), copy=False), _WHITE[kind])
    if array.dtype.kind == "b":
        return Values(np.multiply(array, 255, dtype=np.uint8), 255.0)
    if array.dtype.kind == "f":
        return Values(array.astype(array.dtype.newbyteorder("="), copy=False), 1.0)
    raise _array_error(name, f"has the type {array.dtype}", "Use uint8, uint16, bool, or float in 0..1.")


def _array_error(name: str, message: str, remedy: str) -> MatchRTError:
    return MatchRTError("image-array", f"'{name}' {message}.", remedy)


def _as_array(value: object, name: str) -> npt.NDArray[Any]:
    holds = isinstance(value, np.ndarray | memoryview) or any(
        hasattr(value, attribute) for attribute in ("__array__", "__array_interface__", "__array_struct__")
    )
    if not holds or isinstance(value, type):
        raise _array_error(
            name, f"is a {type(value).__name__}, not an image", "Pass a path, a numpy array or a Pillow image."
        )
    try:
        return np.asarray(value)
    except Exception as error:  # a foreign __array__, such as that of a tensor on a GPU, may raise anything
        raise _array_error(
            name, f"cannot become a numpy array: {error}", "Convert it first, for example tensor.cpu().numpy()."
        ) from error


def _drop_extra_channels(array: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    """[H, W], [H, W, 1], [H, W, 3] or [H, W, 4] to [H, W] or [H, W, 3]; any other shape is an error."""
    if array.ndim == 2 and array.size:
        return array
    shape = "x".join(map(str, array.shape)) or "scalar"
    if array.size == 0:
        raise _array_error(name, f"is empty (shape {shape})", "Pass an image of shape [H,W] or [H,W,3].")
    if array.ndim == 4:
        raise _array_error(name, f"has shape {shape}, a batch", "Pass one image at a time: batch[0].")
    if array.ndim != 3:
        raise _array_error(name, f"has shape {shape}", "Pass an image of shape [H,W], [H,W,1], [H,W,3] or [H,W,4].")
    channels = array.shape[2]
    if channels == 1:
        return array[:, :, 0]
    if channels in (3, 4):
        return array[:, :, :3]
    if array.shape[0] in (1, 3, 4):
        raise _array_error(
            name, f"has shape {shape}, channels first", "Put the channels last: array.transpose(1, 2, 0)."
        )
    raise _array_error(name, f"has {channels} channels (shape {shape})", "Pass 1, 3 or 4 channels, last axis.")
