"""What a run over a video found: a line for each frame, and a summary, in constant memory."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from matchrt.errors import MatchRTError
from matchrt.live.keyframes import STATUSES, Step
from matchrt.live.latencies import Latencies
from matchrt.runtime.verdict import WORDS

# Cuts and spans that the summary lists; more are counted. The lines of the frames have them all.
MOST_LISTED = 1000
_NOTHING_TO_SEE = ("black", "blank", "unreadable")


def record(step: Step, latency_ms: float, dropped: int) -> dict[str, Any]:
    """A step as the values of a JSON line. Raises nothing.

    latency_ms: from the frame's arrival to its result. dropped: frames that were dropped so far.
    """
    line: dict[str, Any] = {"frame": step.frame.index, "time_s": round(step.frame.time, 6), "status": step.status}
    if step.matches is not None and step.key is not None:
        found = step.matches.geometry
        line |= {
            "keyframe": step.key.index,
            "matches": len(step.matches),
            "inliers": 0 if found is None else found.num_inliers,
            "verdict": step.matches.verdict,
            "probability": round(step.matches.probability, 4),
        }
        if found is not None and found.kind == "homography":
            line["homography"] = None if found.matrix is None else found.matrix.tolist()
        elif found is not None:
            line["rotation"] = None if found.rotation is None else found.rotation.tolist()
            line["translation"] = None if found.translation is None else found.translation.tolist()
    if step.frame.problem is not None:
        line["error"] = {"code": step.frame.problem.code, "message": step.frame.problem.message}
    if step.renewed:
        line["renewed"] = True
    if step.cut is not None:
        line["cut"] = step.cut
    return line | {"latency_ms": round(latency_ms, 3), "dropped": dropped}


@dataclass
class Span:
    """Frames in a row that show nothing.

    kind: black, blank or unreadable.
    first, last: their numbers.
    """

    kind: str
    first: int
    last: int


@dataclass
class Report:
    """Counts what the frames of a video gave.

    source: its name.
    statuses: frames by status.
    verdicts: matched frames by verdict.
    keyframes: how many keyframes there were.
    cuts: numbers of the frames at which the video is cut; the first MOST_LISTED.
    cut_count: how many cuts there are.
    spans: of frames that show nothing; the first MOST_LISTED.
    span_count: how many such spans there are.
    latencies: of frames, from arrival to result.
    dropped: frames that were dropped.
    """

    source: str
    statuses: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    keyframes: int = 0
    cuts: list[int] = field(default_factory=list)
    cut_count: int = 0
    spans: list[Span] = field(default_factory=list)
    span_count: int = 0
    latencies: Latencies = field(default_factory=Latencies)
    dropped: int = 0
    _started: float = field(default_factory=time.perf_counter)
    _seconds: float | None = None
    _before: str = ""

    def add(self, step: Step, latency_ms: float, dropped: int) -> None:
        """Counts a frame. Arguments are those of `record`. Raises nothing."""
        self.statuses[step.status] += 1
        self.latencies.add(latency_ms)
        self.dropped = dropped
        self.keyframes += step.renewed
        if step.matches is not None:
            self.verdicts[step.matches.verdict] += 1
        if step.cut is not None:
            self.cut_count += 1
            if len(self.cuts) < MOST_LISTED:
                self.cuts.append(step.cut)
        if step.status in _NOTHING_TO_SEE:
            self._lengthen(step)
        self._before = step.status

    def _lengthen(self, step: Step) -> None:
        if self._before == step.status:
            if self.span_count <= MOST_LISTED:
                self.spans[-1].last = step.frame.index
            return
        self.span_count += 1
        if len(self.spans) < MOST_LISTED:
            self.spans.append(Span(step.status, step.frame.index, step.frame.index))

    def end(self) -> None:
        """Stops the clock. Raises nothing."""
        self._seconds = time.perf_counter() - self._started

    @property
    def frames(self) -> int:
        """How many frames were taken. Raises nothing."""
        return sum(self.statuses.values())

    @property
    def seconds(self) -> float:
        """How long the run took, or has taken so far. Raises nothing."""
        return time.perf_counter() - self._started if self._seconds is None else self._seconds

    def summary(self, error: MatchRTError | None, stopped: bool, whole_pairs: str | None) -> dict[str, Any]:
        """The summary as values of JSON. Raises nothing.

        error: what ended the run early. stopped: whether it was stopped. whole_pairs: why features were not computed
        once a frame; None if they were.
        """
        slowest = {name: self.latencies.percentile(share) for name, share in (("p50", 0.5), ("p99", 0.99))}
        return {
            "source": self.source,
            "ended": "stopped" if stopped else "end" if error is None else error.code,
            "frames": self.frames,
            "dropped": self.dropped,
            "seconds": round(self.seconds, 3),
            "frames_per_second": round(self.frames / max(self.seconds, 1e-9), 3),
            "latency_ms": {name: None if ms is None else round(ms, 2) for name, ms in slowest.items()},
            "statuses": {status: self.statuses[status] for status in STATUSES},
            "verdicts": {word: self.verdicts[word] for word in WORDS},
            "keyframes": self.keyframes,
            "cuts": {"count": self.cut_count, "frames": list(self.cuts)},
            "nothing_seen": {"count": self.span_count, "spans": [vars(span).copy() for span in self.spans]},
            "features": "once a frame" if whole_pairs is None else "whole pairs",
            **({} if whole_pairs is None else {"why_whole_pairs": whole_pairs}),
        }
