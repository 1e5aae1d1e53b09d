"""Percentiles of any number of times in constant memory."""

from __future__ import annotations

import math

# Bins grow by this factor, so a percentile is right to half of it. From a hundredth of a millisecond to a day.
_GROWTH = 1.01
_LEAST, _MOST = 1e-2, 8.64e7
_BINS = math.ceil(math.log(_MOST / _LEAST) / math.log(_GROWTH))


class Latencies:
    """Counts times in milliseconds by bins that grow by a per cent."""

    def __init__(self) -> None:
        self._bins = [0] * (_BINS + 1)
        self.count = 0

    def add(self, milliseconds: float) -> None:
        """Counts a time. Raises nothing."""
        within = min(max(milliseconds, _LEAST), _MOST)
        self._bins[int(math.log(within / _LEAST) / math.log(_GROWTH))] += 1
        self.count += 1

    def percentile(self, share: float) -> float | None:
        """The time that this share (0..1) of all is not above, to a per cent; None without any. Raises nothing."""
        left = share * self.count
        for number, count in enumerate(self._bins):
            left -= count
            if count and left <= 0:
                return float(_LEAST * _GROWTH ** (number + 0.5))
        return None
