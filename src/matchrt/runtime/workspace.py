"""Memory for the images of a call, which the next call uses again.

Fresh arrays of this size come from the system page by page, which costs as much as converting an image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]

# Larger arrays are not kept: a single huge image must not hold its memory for ever.
_LARGEST_KEPT = 32 << 20


class Workspace:
    """Arrays by what they are used for. Only one call uses a workspace at a time (`Workspaces`)."""

    def __init__(self) -> None:
        self._blocks: dict[str, UInt8Array] = {}

    def take(self, use: str, shape: tuple[int, ...]) -> UInt8Array:
        """An array uint8 of `shape`, contiguous, whose values are undefined. Raises nothing.

        It is the caller's until the same `use` is asked for again.
        """
        size = math.prod(shape)
        block = self._blocks.get(use)
        if block is None or len(block) < size:
            block = np.empty(size, np.uint8)
            if size <= _LARGEST_KEPT:
                self._blocks[use] = block
        return block[:size].reshape(shape)


class Workspaces:
    """Workspaces that are free. Several threads may borrow: each gets one of its own."""

    def __init__(self) -> None:
        self._free: list[Workspace] = []

    @contextmanager
    def borrowed(self) -> Iterator[Workspace]:
        """A workspace for the time of one call. Raises nothing."""
        workspace = self.borrow()
        try:
            yield workspace
        finally:
            self.give_back(workspace)

    def borrow(self) -> Workspace:
        """A workspace that is the caller's until it gives it back. Raises nothing."""
        try:
            return self._free.pop()  # one step, so that two threads never get the same one
        except IndexError:
            return Workspace()

    def give_back(self, workspace: Workspace) -> None:
        """Makes a workspace free for the next call. Nothing may use its arrays any more. Raises nothing."""
        self._free.append(workspace)
