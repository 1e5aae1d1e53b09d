"""Memory for the images of a call, which the next call uses again.

Fresh arrays of this size come from the system page by page, which costs as much as converting an image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from matchrt._util.cores import usable_cores

UInt8Array = npt.NDArray[np.uint8]
ItemT = TypeVar("ItemT")

# More threads than these do not make two images faster.
_MOST_THREADS = 8
# Larger arrays are not kept: a single huge image must not hold its memory for ever.
_LARGEST_KEPT = 32 << 20


class Workspace:
    """Arrays by what they are used for, and threads. Only one call uses a workspace at a time (`Workspaces`).

    threads: how many threads share the work of a call, its own among them.
    """

    def __init__(self, threads: int = 1) -> None:
        self.threads = threads
        self._blocks: dict[str, UInt8Array] = {}
        self._pool: ThreadPoolExecutor | None = None  # its threads end with the workspace

    def share(self, items: Sequence[ItemT], work: Callable[[Sequence[ItemT], int], None]) -> None:
        """Calls `work` on a part of `items` in each thread, with the thread's number. Raises what `work` raises."""
        count = min(self.threads, len(items))
        if count <= 1:
            if items:
                work(items, 0)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.threads - 1, "matchrt-images")
        edges = [len(items) * index // count for index in range(count + 1)]
        others = [self._pool.submit(work, items[edges[i] : edges[i + 1]], i) for i in range(1, count)]
        try:
            work(items[: edges[1]], 0)
        finally:
            wait(others)  # they write into the workspace's memory
        for other in others:
            other.result()

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
    """Workspaces that are free. Several threads may borrow: each gets one of its own.

    threads: of each workspace; None for as many as help.
    """

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads or min(_MOST_THREADS, usable_cores())
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
            return Workspace(self._threads)

    def give_back(self, workspace: Workspace) -> None:
        """Makes a workspace free for the next call. Nothing may use its arrays any more. Raises nothing."""
        self._free.append(workspace)
