"""Whether an image size fits into memory, asked before the system finds out the hard way."""

from __future__ import annotations

from pathlib import Path

from matchrt.errors import MatchRTError

# The similarity of all cells with all cells, its two softmaxes, their product, and one in passing; 4 bytes each.
_MATRICES = 5
_MEMINFO = Path("/proc/meminfo")
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def available_bytes() -> int | None:
    """Memory that a program can get, file cache included, or the container's limit where that is smaller.

    None where the system does not say: then nothing is refused.
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
    """Raises `size-memory` when matching images of these (height, width) cannot fit: `stride` pixels a coarse cell."""
    needed, available = _needed(size0, size1, stride), available_bytes()
    if available is not None and needed > available:
        raise MatchRTError(
            "size-memory",
            f"Images of {size0[0]}x{size0[1]} and {size1[0]}x{size1[1]} need about {needed / 1e9:.1f} GB to match; "
            f"{available / 1e9:.1f} GB are free.",
            "Choose a smaller size; memory grows with the fourth power of the side.",
        )


def pairs_that_fit(size0: tuple[int, int], size1: tuple[int, int], stride: int) -> int | None:
    """How many pairs of these (height, width) can be matched at a time; None where the system does not say."""
    available = available_bytes()
    return None if available is None else available // _needed(size0, size1, stride)


def _needed(size0: tuple[int, int], size1: tuple[int, int], stride: int) -> int:
    cells0, cells1 = ((height // stride) * (width // stride) for height, width in (size0, size1))
    return _MATRICES * 4 * cells0 * cells1
