"""Two halves of a request at the same time: one in the request's own thread, the other in a helper's."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

T = TypeVar("T")


class Helpers:
    """`count` threads that all requests share. What they do must not wait for one another."""

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="matchrt-helper")

    def both(self, first: Callable[[], T], second: Callable[[], T]) -> tuple[T, T]:
        """The results of both. Errors: those of `first`, else those of `second`.

        A second half that no helper has begun when the first is done is done by the caller, so that nobody waits for
        other requests' halves. Neither is under way any more when this ends, however it ends.
        """
        helper: Future[T] | None = self._pool.submit(second)
        assert helper is not None
        try:
            result = first()
            return result, (second() if helper.cancel() else helper.result())
        finally:
            if not helper.cancel():
                wait((helper,))
            # An error would hold this frame, the frame the future, and the future the error: images until the next gc.
            helper = None

    def close(self) -> None:
        """Ends the threads; to be called after the last `both`."""
        self._pool.shutdown(wait=True, cancel_futures=True)
