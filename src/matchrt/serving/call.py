"""A request that is being answered: how long it may take, and whether anybody still waits for it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TypeVar

from matchrt.serving.failures import abandoned, too_late
from matchrt.serving.statistics import ModelStatistics

T = TypeVar("T")


class Call:
    """A deadline on the monotonic clock, the run that the request waits for, and where the request is counted.

    seconds: how long the request may take from now.
    begun: the time of its making, in nanoseconds of `time.perf_counter_ns`.
    statistics: of the request's model, as soon as that is known.
    """

    def __init__(self, seconds: float) -> None:
        self.begun = time.perf_counter_ns()
        self.statistics: ModelStatistics | None = None
        self._end = time.monotonic() + seconds
        self._gone = False
        self._run: Future[object] | None = None

    def limit(self, seconds: float) -> None:
        """Allows at most `seconds` from now, and never more than before. Raises nothing."""
        self._end = min(self._end, time.monotonic() + seconds)

    def left(self) -> float:
        """The seconds until the deadline; 0 after it. Raises nothing."""
        return max(self._end - time.monotonic(), 0.0)

    def check(self) -> None:
        """Raises deadline-exceeded or request-abandoned if it is of no use to go on."""
        if self._gone:
            raise abandoned()
        if time.monotonic() >= self._end:
            raise too_late()

    def wait(self, run: Future[T]) -> T:
        """The run's result. A run that has not begun at the deadline is cancelled.

        Errors: deadline-exceeded, request-abandoned, those of the run.
        """
        self._run = run  # type: ignore[assignment]
        if self._gone:
            run.cancel()
        try:
            return run.result(self.left())
        except FutureTimeout as error:
            run.cancel()
            raise too_late() from error
        except CancelledError as error:
            raise abandoned() from error

    @contextlib.contextmanager
    def alone(self, lock: threading.Lock | None) -> Iterator[None]:
        """Holds a lock, if there is one, for the time of a `with` block. Errors: those of `check`, while it waits."""
        while lock is not None and not lock.acquire(timeout=0.05):
            self.check()
        try:
            yield
        finally:
            if lock is not None:
                lock.release()

    def abandon(self) -> None:
        """Called when the client has gone. Cancels a run that has not begun. Raises nothing."""
        self._gone = True
        if self._run is not None:
            self._run.cancel()
