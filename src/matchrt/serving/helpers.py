"""Runs two halves of a request at the same time: one in the request's own thread, the other in a helper's."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

T = TypeVar("T")


class Helpers:
    """`count` threads that all requests share. The work that they get must not wait for other work."""

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="matchrt-helper")

    def both(self, first: Callable[[], T], second: Callable[[], T]) -> tuple[T, T]:
        """The results of both functions. Errors: those of `first`, or else those of `second`.

        If no helper has begun the second half when the first is done, the caller does it, so that nobody waits for
        other requests' halves. Neither half runs any more when this returns or raises.
        """
        helper: Future[T] | None = self._pool.submit(second)
        assert helper is not None
        try:
            result = first()
            return result, (second() if helper.cancel() else helper.result())
        finally:
            if not helper.cancel():
                wait((helper,))
            # An error refers to this frame, the frame to the future, and the future to the error. Without this line,
            # the cycle keeps images in memory until the next garbage collection.
            helper = None

    def close(self) -> None:
        """Ends the threads. Call it after the last `both`. Raises nothing."""
        self._pool.shutdown(wait=True, cancel_futures=True)
