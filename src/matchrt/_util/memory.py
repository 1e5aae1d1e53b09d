"""Checks whether images of a size fit into memory before a run that would end in a crash."""

from __future__ import annotations

from pathlib import Path

from matchrt.errors import MatchRTError

# Matrices of all cells by all cells, 4 bytes a value: the similarity, two softmaxes, their product, a temporary one.
_MATRICES = 5
_MEMINFO = Path("/proc/meminfo")
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def available_bytes() -> int | None:
    """Bytes of memory that a program can get, file cache included, or the container's limit if that is smaller.

    None if the system does not say; then nothing is refused.
    """
    known = [value for value in (_meminfo_available(), _cgroup_limit()) if value is not None]
    return min(known, default=None)


def _meminfo_available() -> int | None:
    try:
        lines = _MEMINFO.read_text().splitlines()
    except OSError:
        return None
    found = next((line.split() for line in lines if line.startswith("MemAvailable:")), None)
    return None if found is None else int(found[1]) * 1024


def _cgroup_limit() -> int | None:
    try:
        return int(_CGROUP_LIMIT.read_text())
    except (OSError, ValueError):  # no such file, or "max"
        return None


def require_memory(size0: tuple[int, int], size1: tuple[int, int], stride: int) -> None:
    """Raises `size-memory` if the memory for matching two images is not free.

    size0, size1: (height, width) of the images, pixels.
    stride: pixels along a side of a coarse cell.
    """
    needed, available = _needed(size0, size1, stride), available_bytes()
    if available is not None and needed > available:
        raise MatchRTError(
            "size-memory",
            f"Images of {size0[0]}x{size0[1]} and {size1[0]}x{size1[1]} need about {needed / 1e9:.1f} GB to match; "
            f"{available / 1e9:.1f} GB are free.",
            "Choose a smaller size; memory grows with the fourth power of the side.",
        )


def pairs_that_fit(size0: tuple[int, int], size1: tuple[int, int], stride: int) -> int | None:
    """How many pairs can be matched at a time; None if the system does not say. Raises nothing.

    Arguments are those of `require_memory`.
    """
    available = available_bytes()
    return None if available is None else available // _needed(size0, size1, stride)


def _needed(size0: tuple[int, int], size1: tuple[int, int], stride: int) -> int:
    cells0, cells1 = ((height // stride) * (width // stride) for height, width in (size0, size1))
    return _MATRICES * 4 * cells0 * cells1
