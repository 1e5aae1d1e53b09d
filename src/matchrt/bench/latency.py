"""Measuring how long a pair takes, from images in host memory (or files) to matches in host memory.

Several subjects are measured in turn, A B A B, so that a machine that becomes slower or faster does so for all of them.
There is a pause between two calls. Thread pools spin for a while after their work and would slow the next subject down.

Errors: `bench-runs`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from matchrt.errors import MatchRTError

if TYPE_CHECKING:
    from matchrt.runtime.matches import Matches
    from matchrt.runtime.session import Arrays, Session

TOTAL = "total"
# OVERHEAD is the time of a call less the GPU's own time: preparation, copies, waiting, Python.
GPU, OVERHEAD = "gpu", "overhead"
# One call on prepared arguments. It returns milliseconds by stage, or None if it has no stages.
Subject = Callable[[], "Mapping[str, float] | None"]


class Matching(Protocol):
    """What `matcher_subject` needs of a Matcher."""

    def match(self, image0: Any, image1: Any) -> Matches:
        """Matches two images, given as paths or arrays."""
        ...


@dataclass(frozen=True)
class LatencyOptions:
    """How often a subject is called.

    runs: measured calls of each subject.
    warm_up: calls of each subject before these, which are not counted.
    pause: seconds between two calls.
    """

    runs: int = 30
    warm_up: int = 3
    pause: float = 0.02


@dataclass(frozen=True)
class Stage:
    """The time of one stage over all runs, in milliseconds. Percentiles are interpolated linearly.

    p50: median.
    p90: 90th percentile.
    p99: 99th percentile.
    fastest: smallest time.
    slowest: largest time.
    """

    p50: float
    p90: float
    p99: float
    fastest: float
    slowest: float

    @staticmethod
    def of(samples: list[float]) -> Stage:
        """The figures of a non-empty list of milliseconds."""
        p50, p90, p99 = (float(value) for value in np.percentile(samples, (50, 90, 99)))
        return Stage(p50, p90, p99, min(samples), max(samples))

    def to_json(self) -> dict[str, float]:
        """As JSON values, milliseconds."""
        return {name: round(value, 4) for name, value in vars(self).items()}


@dataclass(frozen=True)
class SubjectLatency:
    """The latency of one subject.

    name: the subject's name.
    stages: figures by stage, in the order of the stages; the last one, `total`, is measured around the whole call.
    samples: the total of every run, in milliseconds.
    """

    name: str
    stages: dict[str, Stage]
    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median of the total, in milliseconds."""
        return self.stages[TOTAL].p50


@dataclass(frozen=True)
class LatencyReport:
    """The latency of all subjects that were measured in turn.

    options: how often they were called.
    subjects: the results; the others are compared with the first one.
    """

    options: LatencyOptions
    subjects: tuple[SubjectLatency, ...]

    def ratios(self) -> dict[str, float]:
        """Each subject's median total divided by that of the first; 0.5 means twice as fast as the first."""
        return {subject.name: subject.median / self.subjects[0].median for subject in self.subjects}

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        ratios = self.ratios()
        return {
            "runs": self.options.runs,
            "warm_up": self.options.warm_up,
            "pause_s": self.options.pause,
            "order": "interleaved",
            "subjects": {
                subject.name: {
                    "stages_ms": {name: stage.to_json() for name, stage in subject.stages.items()},
                    "samples_ms": [round(value, 4) for value in subject.samples],
                    "ratio_to_first": round(ratios[subject.name], 4),
                }
                for subject in self.subjects
            },
        }


def measure(
    subjects: Mapping[str, Subject],
    options: LatencyOptions | None = None,
    *,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
    advance: Callable[[], None] | None = None,
) -> LatencyReport:
    """Measures the subjects in turn.

    clock: gives seconds. sleep: waits for so many seconds. advance: called after each round, those of the warm-up
    included. Error: bench-runs, if there is no subject or no run.
    """
    options = options or LatencyOptions()
    if not subjects or options.runs < 1 or options.warm_up < 0:
        raise MatchRTError(
            "bench-runs",
            f"There is nothing to measure with {len(subjects)} subjects, {options.runs} runs and {options.warm_up} "
            "warm-up runs.",
            "Use at least one engine and one run, and no negative number of warm-up runs.",
        )
    totals: dict[str, list[float]] = {name: [] for name in subjects}
    stages: dict[str, dict[str, list[float]]] = {name: {} for name in subjects}
    for turn in range(options.warm_up + options.runs):
        for name, call in subjects.items():
            sleep(options.pause)
            start = clock()
            timings = call()
            elapsed = (clock() - start) * 1e3
            if turn < options.warm_up:
                continue
            totals[name].append(elapsed)
            for stage, milliseconds in _with_overhead(timings or {}, elapsed).items():
                stages[name].setdefault(stage, []).append(milliseconds)
        if advance is not None:
            advance()
    return LatencyReport(options, tuple(_subject(name, stages[name], totals[name]) for name in subjects))


def _with_overhead(timings: Mapping[str, float], elapsed: float) -> dict[str, float]:
    return dict(timings) | ({OVERHEAD: elapsed - timings[GPU]} if GPU in timings else {})


def matcher_subject(matcher: Matching, image0: Any, image1: Any) -> Subject:
    """A subject that matches one pair and has the stages that the matcher reports.

    image0, image1: paths, whose decoding counts then, or arrays as `Matcher.match` takes them.
    """
    return lambda: matcher.match(image0, image1).timings


def session_subject(session: Session, inputs: Arrays) -> Subject:
    """A subject that runs a session on prepared inputs, by name. It has no stages."""

    def call() -> None:
        session.run(inputs)

    return call


def _subject(name: str, stages: dict[str, list[float]], totals: list[float]) -> SubjectLatency:
    ordered = {stage: Stage.of(samples) for stage, samples in stages.items()}
    return SubjectLatency(name, {**ordered, TOTAL: Stage.of(totals)}, tuple(totals))
