"""A tensor as its file describes it, before any of its bytes is read."""

from __future__ import annotations

import math
from dataclasses import dataclass

from matchrt.export.weights.files.elements import Element
from matchrt.export.weights.files.problems import DamagedError

_LONGEST_SHAPE = 64  # of torch
_MOST_AXES = 32  # of NumPy 1
_LARGEST = 1 << 63


@dataclass(frozen=True)
class StorageRecord:
    """The memory of one or more tensors in the file.

    key: torch's name of it in the file.
    element: type of the elements; None for plain bytes.
    number: of its elements.
    step: bytes of one of them.
    odd: what is special about its elements, if they cannot be read; else empty.
    """

    key: str
    element: Element | None
    number: int
    step: int = 1
    odd: str = ""

    @property
    def bytes(self) -> int:
        """Its size."""
        return self.number * self.step


@dataclass(frozen=True)
class TensorRecord:
    """A dense tensor in a storage.

    storage: where its values are.
    element: type of its elements.
    offset: of the first value in the storage, in elements.
    shape: in elements.
    stride: steps along each axis, in elements.
    """

    storage: StorageRecord
    element: Element
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def elements(self) -> int:
        """The number of values."""
        return math.prod(self.shape)

    @property
    def problem(self) -> str:
        """Why the values cannot be read from the storage; empty if they can."""
        if len(self.shape) > _MOST_AXES:
            return f"of more than {_MOST_AXES} axes"
        if math.prod(max(side, 1) for side in self.shape) * self.element.bytes >= _LARGEST:
            return "larger than any memory"
        # An expanded tensor is larger than what is stored: a small file could ask for all of the memory.
        if self.elements * self.element.bytes > self.storage.bytes:
            return "larger than what the file holds for it"
        last = self.offset + sum((side - 1) * step for side, step in zip(self.shape, self.stride, strict=True))
        if self.elements and (last + 1) * self.element.bytes > self.storage.bytes:
            return "reaching beyond what the file holds for it"
        return ""


@dataclass(frozen=True)
class OddTensor:
    """A tensor that is not read: sparse, quantised, without values, of a type that NumPy and matchrt do not have.

    why: one or two words that go before "tensor" or follow "it is".
    """

    why: str


def sizes(value: object) -> tuple[int, ...]:
    """A shape or stride of the file. Raises DamagedError if it is none."""
    if not isinstance(value, tuple | list) or len(value) > _LONGEST_SHAPE:
        raise DamagedError("a tensor's shape is no short list of sizes")
    return tuple(size(side) for side in value)


def size(value: object) -> int:
    """A size or offset of the file. Raises DamagedError if it is none."""
    if type(value) is not int or not 0 <= value < _LARGEST:
        raise DamagedError("a tensor's size, offset or stride is no number that it can be")
    return value
