"""Freed memory back to the system."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from functools import cache

# Who held more has its memory given back; what is smaller is used again.
_LARGE = 4_000_000
_PAUSE = 0.3


class Trimmer:
    """A thread that asks the C library, a little after large bodies have gone, to give back what they have left.

    glibc keeps freed memory between pieces that are in use, for each thread apart: 20 bodies of 60 MB left a gigabyte.
    """

    def __init__(self) -> None:
        self._wanted, self._closed = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="matchrt-memory", daemon=True)
        self._thread.start()

    def freed(self, size: int) -> None:
        """Called with the bytes that a request held and holds no longer. Raises nothing."""
        if size >= _LARGE:
            self._wanted.set()

    def close(self) -> None:
        """Ends the thread."""
        self._closed.set()
        self._wanted.set()
        self._thread.join()

    def _work(self) -> None:
        trim = _malloc_trim()
        while self._wanted.wait() and not self._closed.wait(_PAUSE):
            self._wanted.clear()
            if trim is not None:
                trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    try:
        function: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # another C library
        return None
    return function
