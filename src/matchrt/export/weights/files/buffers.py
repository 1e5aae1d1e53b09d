"""Memory for the bytes of tensors."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np

Bytes = np.ndarray[Any, np.dtype[np.uint8]]

# As torch aligns its tensors. Where it is not so, libraries of products may add in another order, and round otherwise.
_ALIGNMENT = 64


def new_bytes(size: int) -> Bytes:
    """Writable memory. Raises MemoryError.

    It is Python's own and not `np.empty`: NumPy asks Linux for huge pages, which took three times as long to get as the
    whole file took to read (1.2 GB, a virtual machine).
    """
    data = np.frombuffer(bytearray(size + _ALIGNMENT - 1), np.uint8)
    start = -data.ctypes.data % _ALIGNMENT
    return data[start : start + size]


def read_bytes(stream: BinaryIO, start: int, size: int) -> Bytes | None:
    """Bytes of a file; None if it ends before."""
    stream.seek(start)
    data = new_bytes(size)
    return data if stream.readinto(data.data) == size else None  # type: ignore[attr-defined]
