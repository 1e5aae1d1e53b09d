"""Pairs a second with several threads, each with a session of its own on one loaded engine.

The threads belong to one Python process, as in a program that serves several cameras. Each matches the same pair over
and over; the clock runs from the moment that all begin to the moment that the last one ends.

Error: `bench-runs`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from matchrt.errors import MatchRTError

Call = Callable[[], object]


@dataclass(frozen=True)
class ThroughputOptions:
    """seconds: how long each number of streams is measured, unless `count` pairs a stream are asked for.

    warm_up: calls of each stream before, not counted: the third one of a TensorRT session captures its graph.
    """

    seconds: float = 2.0
    count: int | None = None
    warm_up: int = 3


@dataclass(frozen=True)
class Rate:
    """pairs: matched by all streams together, within `seconds`."""

    streams: int
    pairs: int
    seconds: float

    @property
    def per_second(self) -> float:
        """Pairs a second."""
        return self.pairs / self.seconds if self.seconds > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "pairs_per_second": round(self.per_second, 3)}


@dataclass(frozen=True)
class ThroughputReport:
    """Rates by engine, for 1 to N streams."""

    options: ThroughputOptions
    rates: dict[str, tuple[Rate, ...]]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        rates = {name: [rate.to_json() for rate in found] for name, found in self.rates.items()}
        return {**asdict(self.options), "engines": rates}


def measure_throughput(
    subjects: Mapping[str, Sequence[Call]],
    options: ThroughputOptions | None = None,
    advance: Callable[[], None] | None = None,
) -> ThroughputReport:
    """Measures 1, 2, ... N streams of every subject, which gives N calls; subjects take turns at each number.

    `advance` is called after each measurement.
    """
    options = options or ThroughputOptions()
    most = max((len(calls) for calls in subjects.values()), default=0)
    if not most or options.seconds <= 0 or (options.count is not None and options.count < 1):
        raise MatchRTError("bench-runs", "No stream, no time or no pair measures nothing.", "Use one of each at least.")
    rates: dict[str, list[Rate]] = {name: [] for name in subjects}
    for streams in range(1, most + 1):
        for name, calls in subjects.items():
            rates[name].append(measure_rate(calls[:streams], options))
            if advance is not None:
                advance()
    return ThroughputReport(options, {name: tuple(found) for name, found in rates.items()})


def measure_rate(calls: Sequence[Call], options: ThroughputOptions) -> Rate:
    """Runs each call in a thread of its own; the first error of any is raised."""
    gate = threading.Barrier(len(calls))

    def stream(call: Call) -> tuple[float, float, int]:
        try:
            for _ in range(options.warm_up):
                call()
        except BaseException:
            gate.abort()  # the others would wait for ever
            raise
        gate.wait()
        done, start = 0, time.perf_counter()
        while done < options.count if options.count is not None else time.perf_counter() - start < options.seconds:
            call()
            done += 1
        return start, time.perf_counter(), done

    with ThreadPoolExecutor(max_workers=len(calls)) as pool:
        pending = [pool.submit(stream, call) for call in calls]
    failures = [error for error in (future.exception() for future in pending) if error is not None]
    for error in sorted(failures, key=lambda error: isinstance(error, threading.BrokenBarrierError)):
        raise error
    spans = [future.result() for future in pending]
    starts, ends, counts = zip(*spans, strict=True)
    return Rate(len(calls), sum(counts), max(ends) - min(starts))
