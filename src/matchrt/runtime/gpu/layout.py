"""Where the tensors of a run are in one block of memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from matchrt.manifest import TensorSpec

# TensorRT needs addresses that are multiples of this.
ALIGNMENT = 256
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Place:
    """A tensor's bytes within the block.

    name: of the tensor.
    dtype: NumPy's type of its elements.
    shape: in elements.
    offset: where it begins in the block, bytes.
    size: its length, bytes.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    size: int

    def view(self, block: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
        """The tensor as an array of its `shape` in the block `[size]`, not a copy. Raises nothing."""
        return block[self.offset : self.offset + self.size].view(self.dtype).reshape(self.shape)


@dataclass(frozen=True)
class Layout:
    """Where all inputs, or all outputs, of a run are.

    places: one for each tensor, in the order of the manifest.
    size: bytes of the block that holds them.
    """

    places: tuple[Place, ...]
    size: int


def lay_out(specs: Iterable[TensorSpec], shapes: Shapes) -> Layout:
    """Lays tensors one after another, each aligned to 256 bytes. Raises nothing.

    shapes: of each tensor, by name, in elements.
    """
    places: list[Place] = []
    end = 0
    for spec in specs:
        dtype, shape = np.dtype(spec.dtype), shapes[spec.name]
        offset = -(-end // ALIGNMENT) * ALIGNMENT
        size = dtype.itemsize * math.prod(shape)
        places.append(Place(spec.name, dtype, shape, offset, size))
        end = offset + size
    return Layout(tuple(places), end)
