"""Pairs per second of one stream of frames through `match_many`, and whether its engine ever waits for images.

Error: `bench-runs`.
"""

from __future__ import annotations

import itertools
import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from matchrt.bench.latency import GPU
from matchrt.bench.scene import image_pair
from matchrt.bench.throughput import ThroughputOptions

if TYPE_CHECKING:
    from collections.abc import Generator

    from matchrt.runtime.matcher import Matcher
    from matchrt.runtime.matches import Matches


@dataclass(frozen=True)
class StreamRate:
    """One stream of pairs.

    size: (height, width) of the frames, pixels.
    pairs: how many were matched.
    seconds: in how long.
    busy: the share of that time in which the engine worked, 0..1, by its own clock.
    waited: the share in which it had to wait for images, 0..1.
    """

    size: tuple[int, int]
    pairs: int
    seconds: float
    busy: float
    waited: float

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "frame": list(self.size),
            "pairs": self.pairs,
            "seconds": round(self.seconds, 4),
            "pairs_per_second": round(self.pairs / self.seconds, 3),
            "engine_busy": round(self.busy, 4),
            "engine_waited": round(self.waited, 4),
        }


def measure_stream(matcher: Matcher, size: tuple[int, int], options: ThroughputOptions) -> StreamRate:
    """Streams RGB frames in host memory through a matcher, for `options.seconds` or `options.count` pairs.

    size: (height, width) of the frames, pixels. Errors: those of `match_many`.
    """
    first, second, _ = image_pair(*size)
    stream = cast("Generator[Matches, None, None]", matcher.match_many(itertools.repeat((first, second))))
    with closing(stream) as found:
        # Each of the two sessions of an engine on a GPU captures its CUDA graph first.
        for _ in range(2 * options.warm_up if matcher.session.asynchronous else 1):
            next(found)
        start = now = time.perf_counter()
        pairs, busy, waited = 0, 0.0, 0.0
        while pairs < options.count if options.count is not None else now - start < options.seconds:
            timings = next(found).timings
            busy += timings.get(GPU, timings.get("inference", 0.0))
            waited += timings.get("wait", 0.0)
            pairs, now = pairs + 1, time.perf_counter()
    seconds = now - start
    return StreamRate(size, pairs, seconds, min(busy / 1e3 / seconds, 1.0), min(waited / 1e3 / seconds, 1.0))
