"""What the node has done, and how it is, as diagnostics show it. No ROS is needed."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable

OK, WARN, ERROR = 0, 1, 2
# Latencies of so many pairs are averaged.
_RECENT = 50
# An error counts as present for so many seconds.
_FRESH = 5.0


class Health:
    """Counters that callbacks and the matching thread write, and the diagnostics read.

    stale_after: seconds without a matched pair after which `level` is a warning.
    """

    def __init__(self, stale_after: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._clock, self._stale_after = clock, stale_after
        self._counts = {"images": 0, "pairs matched": 0, "pairs dropped": 0, "errors": 0}
        self._recent: deque[tuple[float, float]] = deque(maxlen=_RECENT)
        self._begun = self._last_pair = clock()
        self._last_matches = 0
        self._error, self._error_at = "", -math.inf

    def image(self) -> None:
        """An image came."""
        with self._lock:
            self._counts["images"] += 1

    def dropped(self) -> None:
        """A pair was replaced by a newer one before it was matched."""
        with self._lock:
            self._counts["pairs dropped"] += 1

    def matched(self, milliseconds: float, matches: int) -> None:
        """A pair was matched, from the message's bytes to the published matches, in so many milliseconds."""
        with self._lock:
            self._counts["pairs matched"] += 1
            self._last_pair, self._last_matches = self._clock(), matches
            self._recent.append((self._last_pair, milliseconds))

    def failed(self, message: str) -> None:
        """A pair or an image could not be used."""
        with self._lock:
            self._counts["errors"] += 1
            self._error, self._error_at = message, self._clock()

    def report(self) -> tuple[int, str, dict[str, str]]:
        """The level (0 ok, 1 warning, 2 error), a sentence, and the figures by name."""
        with self._lock:
            now, values = self._clock(), {name: str(count) for name, count in self._counts.items()}
            values["matches of the last pair"] = str(self._last_matches)
            if self._recent:
                times = [milliseconds for _, milliseconds in self._recent]
                values["latency, ms"] = f"{sum(times) / len(times):.2f}"
                values["largest latency, ms"] = f"{max(times):.2f}"
            if len(self._recent) > 1:
                span = self._recent[-1][0] - self._recent[0][0]
                values["pairs a second"] = f"{(len(self._recent) - 1) / span:.2f}" if span > 0 else "0"
            if self._error:
                values["last error"] = self._error
            if now - self._error_at < _FRESH and self._error_at >= self._last_pair:
                return ERROR, self._error, values
            if now - self._last_pair > self._stale_after:
                return WARN, f"No pair for {now - self._last_pair:.0f} s.", values
            return OK, "Matching." if self._counts["pairs matched"] else "Waiting for images.", values
