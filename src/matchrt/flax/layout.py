"""The two layouts of a set of weights: torch's, which checkpoints have, and Flax's.

Module names are the same on both sides. A tensor changes the last part of its name and the order of its axes, but never
a value:

    torch                        Flax            axes
    weight of a linear layer     kernel          [out, in] -> [in, out]
    weight of a convolution      kernel          OIHW -> HWIO
    weight of a norm             scale           as it is
    running_mean, running_var    mean, var       as it is
    bias, num_batches_tracked    the same        as it is

`num_batches_tracked` is torch's counter of training steps. Flax's BatchNorm has none, so the network leaves it out.
Files in Flax's layout keep it, so that they can be converted back completely. This module imports NumPy only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]
Part = Literal["transformer", "backbone", "all"]
PARTS: tuple[Part, ...] = ("transformer", "backbone", "all")
COUNTER = "num_batches_tracked"
# The beginning of the names of each part's tensors, in both layouts.
PART_MODULES: Mapping[str, str] = {"transformer": "loftr_coarse.", "backbone": "backbone.", "all": ""}

_WEIGHT = {1: "scale", 2: "kernel", 4: "kernel"}
_TO_FLAX_AXES = {2: (1, 0), 4: (2, 3, 1, 0)}
_TO_TORCH_AXES = {2: (1, 0), 4: (3, 2, 0, 1)}
_STATISTICS = {"running_mean": "mean", "running_var": "var"}
_CHANGES = {2: "transposed", 4: "OIHW to HWIO"}


def flax_name(key: str, axes: int) -> str:
    """Flax's name of torch's tensor `key`, which has so many axes."""
    stem, _, leaf = key.rpartition(".")
    leaf = _WEIGHT.get(axes, leaf) if leaf == "weight" else _STATISTICS.get(leaf, leaf)
    return f"{stem}.{leaf}" if stem else leaf


def torch_name(name: str) -> str:
    """Torch's key of Flax's array `name`."""
    stem, _, leaf = name.rpartition(".")
    back = {"kernel": "weight", "scale": "weight", **{flax: torch for torch, flax in _STATISTICS.items()}}
    leaf = back.get(leaf, leaf)
    return f"{stem}.{leaf}" if stem else leaf


def to_flax(array: Array, key: str) -> Array:
    """Torch's tensor `key` with its axes in Flax's order. Values and type do not change."""
    return _moved(array, _TO_FLAX_AXES) if key.endswith("weight") else array


def to_torch(array: Array, name: str) -> Array:
    """Flax's array `name` with its axes in torch's order. Values and type do not change."""
    return _moved(array, _TO_TORCH_AXES) if name.endswith("kernel") else array


def flax_shape(shape: tuple[int, ...], key: str) -> tuple[int, ...]:
    """The shape that torch's tensor `key` of this shape has in Flax."""
    order = _TO_FLAX_AXES.get(len(shape)) if key.endswith("weight") else None
    return shape if order is None else tuple(shape[axis] for axis in order)


def change(key: str, axes: int) -> str:
    """What happens to the axes of torch's tensor `key` on its way to Flax, in words; empty if nothing does."""
    return _CHANGES.get(axes, "") if key.endswith("weight") else ""


def is_torch_layout(names: Mapping[str, Any]) -> bool:
    """Whether names are torch's. Torch calls every learnt factor `weight`, and Flax calls none so."""
    return any(name.rpartition(".")[2] == "weight" for name in names)


def _moved(array: Array, axes: Mapping[int, tuple[int, ...]]) -> Array:
    order = axes.get(array.ndim)
    return array if order is None else np.ascontiguousarray(array.transpose(order))
