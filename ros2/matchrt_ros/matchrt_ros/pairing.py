"""Which two images belong together, and which pair is matched next. Plain Python, in nanoseconds and seconds."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class ApproximateSync(Generic[T]):
    """Pairs the items of two streams whose stamps are nearest, as message_filters does, and drops the older ones.

    slop: nanoseconds that the stamps of a pair may differ. Below half a frame's time, each item has one partner.
    depth: how many items of each stream wait for their partner.
    """

    def __init__(self, slop: int, depth: int = 4) -> None:
        self.slop = slop
        self._waiting: tuple[deque[tuple[int, T]], deque[tuple[int, T]]] = (deque(maxlen=depth), deque(maxlen=depth))

    def add(self, side: int, stamp: int, item: T) -> tuple[T, T] | None:
        """Takes an item of stream 0 or 1, and returns the pair that it completes; None if its partner is missing."""
        others = self._waiting[1 - side]
        nearest = min(others, key=lambda entry: abs(entry[0] - stamp), default=None)
        if nearest is None or abs(nearest[0] - stamp) > self.slop:
            self._waiting[side].append((stamp, item))
            return None
        # What came before this pair will find no better partner.
        self._waiting[side].clear()
        while others.popleft() is not nearest:
            pass
        return (item, nearest[1]) if side == 0 else (nearest[1], item)


class LatestJob(Generic[T]):
    """A place for one job: a new one takes the place of one that still waits. One thread offers, another takes.

    max_rate: jobs a second at most; 0 for no limit.
    """

    def __init__(self, max_rate: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._gap = 1.0 / max_rate if max_rate > 0 else 0.0
        self._clock = clock
        self._changed = threading.Condition()
        self._job: T | None = None
        self._closed = False
        self._next = 0.0

    def offer(self, job: T) -> bool:
        """Puts a job down, and returns whether it took the place of one that nobody had taken."""
        with self._changed:
            replaced = self._job is not None
            self._job = job
            self._changed.notify()
            return replaced

    def take(self) -> T | None:
        """Waits for the newest job, not before the rate allows one; None once `close` was called."""
        with self._changed:
            while not self._closed:
                early = self._next - self._clock()
                if self._job is not None and early <= 0:
                    job, self._job = self._job, None
                    self._next = self._clock() + self._gap
                    return job
                self._changed.wait(early if self._job is not None else None)
            return None

    def close(self) -> None:
        """Ends `take`, now and later."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
