"""Freed memory back to the system."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from functools import cache

# Who held more has its memory given back; what is smaller is used again.
_LARGE = 4_000_000
_PAUSE = 0.3
# Of malloc.h. Pieces of this size and more have pages of their own, which go back when they are freed.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_OWN_PAGES = 4 << 20


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
        trim = _function("malloc_trim")
        while self._wanted.wait() and not self._closed.wait(_PAUSE):
            self._wanted.clear()
            if trim is not None:
                trim(0)


def return_large_pieces() -> None:
    """Tells the C library to give large pieces back as soon as they are freed, in the whole process. Raises nothing.

    Unasked, glibc keeps up to 64 MB in each thread's heap once a piece of that size was freed.
    """
    mallopt = _function("mallopt")
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _OWN_PAGES)
        mallopt(_M_TRIM_THRESHOLD, _OWN_PAGES)


@cache
def _function(name: str) -> Callable[..., int] | None:
    try:
        found: Callable[..., int] = getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):  # another C library
        return None
    return found
