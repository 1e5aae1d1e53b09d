"""Pairs by the order of the images."""

from __future__ import annotations

from collections.abc import Iterator

IndexPair = tuple[int, int]


def all_pairs(count: int) -> Iterator[IndexPair]:
    """Every pair of `count` images, as numbers (i, j) with i < j. Raises nothing."""
    return ((i, j) for i in range(count) for j in range(i + 1, count))


def window_pairs(count: int, window: int, loop: bool) -> Iterator[IndexPair]:
    """Each image with the `window` images that follow it, as numbers (i, j) with i < j. Raises nothing.

    loop: whether the first image follows the last one.
    """
    for i in range(count):
        yield from ((i, j) for j in range(i + 1, min(count, i + 1 + window)))
        if loop:
            # Image i is `count - j + i` steps behind image j; pairs within the window are there already.
            yield from ((i, j) for j in range(max(i + 1 + window, count - window + i), count))
