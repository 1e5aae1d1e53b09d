"""The two layouts of one set of weights: torch's, as checkpoints have it, and Flax's.

Module names are the same on both sides, so a tensor changes its last name and the order of its axes, never a value:

    torch                        Flax            axes
    weight of a linear layer     kernel          [out, in] -> [in, out]
    weight of a convolution      kernel          OIHW -> HWIO
    weight of a norm             scale           as it is
    running_mean, running_var    mean, var       as it is
    bias, num_batches_tracked    the same        as it is

`num_batches_tracked` is torch's counter of training steps, which Flax's BatchNorm does not have: files of the Flax
layout carry it, so that the way back is complete; the network leaves it out. Imports NumPy only.
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
# Where the parts' tensors lie, in both layouts.
PART_MODULES: Mapping[str, str] = {"transformer": "loftr_coarse.", "backbone": "backbone.", "all": ""}

_WEIGHT = {1: "scale", 2: "kernel", 4: "kernel"}
_TO_FLAX_AXES = {2: (1, 0), 4: (2, 3, 1, 0)}
_TO_TORCH_AXES = {2: (1, 0), 4: (3, 2, 0, 1)}
_STATISTICS = {"running_mean": "mean", "running_var": "var"}
_CHANGES = {2: "transposed", 4: "OIHW to HWIO"}


def flax_name(key: str, axes: int) -> str:
    """The name that torch's tensor `key` with so many axes has in Flax."""
    stem, _, leaf = key.rpartition(".")
    leaf = _WEIGHT.get(axes, leaf) if leaf == "weight" else _STATISTICS.get(leaf, leaf)
    return f"{stem}.{leaf}" if stem else leaf


def torch_name(name: str) -> str:
    """The key that Flax's array `name` has in torch."""
    stem, _, leaf = name.rpartition(".")
    back = {"kernel": "weight", "scale": "weight", **{flax: torch for torch, flax in _STATISTICS.items()}}
    leaf = back.get(leaf, leaf)
    return f"{stem}.{leaf}" if stem else leaf


def to_flax(array: Array, key: str) -> Array:
    """Torch's tensor `key` with its axes in Flax's order; values and type stay."""
    return _moved(array, _TO_FLAX_AXES) if key.endswith("weight") else array


def to_torch(array: Array, name: str) -> Array:
    """Flax's array `name` with its axes in torch's order; values and type stay."""
    return _moved(array, _TO_TORCH_AXES) if name.endswith("kernel") else array


def flax_shape(shape: tuple[int, ...], key: str) -> tuple[int, ...]:
    """What `to_flax` makes of a shape."""
    order = _TO_FLAX_AXES.get(len(shape)) if key.endswith("weight") else None
    return shape if order is None else tuple(shape[axis] for axis in order)


def change(key: str, axes: int) -> str:
    """What happens to torch's tensor `key` on its way to Flax, in words; empty where nothing does."""
    return _CHANGES.get(axes, "") if key.endswith("weight") else ""


def is_torch_layout(names: Mapping[str, Any]) -> bool:
    """Whether names are torch's: it calls every learnt factor `weight`, Flax none."""
    return any(name.rpartition(".")[2] == "weight" for name in names)


def _moved(array: Array, axes: Mapping[int, tuple[int, ...]]) -> Array:
    order = axes.get(array.ndim)
    return array if order is None else np.ascontiguousarray(array.transpose(order))
