"""Measuring pairs per second with several threads, each with its own session on one loaded engine.

The threads belong to one Python process, as in a program that serves several cameras. Each matches the same pair over
and over. The clock runs from the moment when all begin to the moment when the last one ends.

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
    """How long throughput is measured.

    seconds: time for each number of streams, if `count` is None.
    count: number of pairs of each stream; None to measure by time.
    warm_up: calls of each stream before these, which are not counted; the third call of a TensorRT session captures its
        CUDA graph.
    """

    seconds: float = 2.0
    count: int | None = None
    warm_up: int = 3


@dataclass(frozen=True)
class Rate:
    """The throughput of one number of streams.

    streams: number of streams that ran at the same time.
    pairs: number of pairs that all streams matched together.
    seconds: time from the first stream's start to the last one's end.
    """

    streams: int
    pairs: int
    seconds: float

    @property
    def per_second(self) -> float:
        """Pairs per second of all streams together."""
        return self.pairs / self.seconds if self.seconds > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "pairs_per_second": round(self.per_second, 3)}


@dataclass(frozen=True)
class ThroughputReport:
    """The throughput of all engines.

    options: how long it was measured.
    rates: by the engine's name, the results for 1 to N streams.
    """

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
    """Measures 1, 2, ... N streams of every subject. The subjects take turns at each number.

    subjects: for each name N calls, one for each stream. advance: called after each measurement.
    Error: bench-runs, if there is nothing to measure.
    """
    options = options or ThroughputOptions()
    most = max((len(calls) for calls in subjects.values()), default=0)
    if not most or options.seconds <= 0 or (options.count is not None and options.count < 1):
        raise MatchRTError(
            "bench-runs",
            "Throughput needs at least one stream, some time and one pair.",
            "Use at least one stream, and a time or a number of pairs above 0.",
        )
    rates: dict[str, list[Rate]] = {name: [] for name in subjects}
    for streams in range(1, most + 1):
        for name, calls in subjects.items():
            rates[name].append(measure_rate(calls[:streams], options))
            if advance is not None:
                advance()
    return ThroughputReport(options, {name: tuple(found) for name, found in rates.items()})


def measure_rate(calls: Sequence[Call], options: ThroughputOptions) -> Rate:
    """Measures the calls at the same time, each in its own thread. The first error of any thread is raised."""
    gate = threading.Barrier(len(calls))

    def stream(call: Call) -> tuple[float, float, int]:
        try:
            for _ in range(options.warm_up):
                call()
        except BaseException:
            gate.abort()  # otherwise the others would wait for ever
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
