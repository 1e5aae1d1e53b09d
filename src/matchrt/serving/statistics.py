"""What Triton's statistics extension says of a model: how many requests, and where their time went.

The terms are those of github.com/triton-inference-server/server, docs/protocol/extension_statistics.md. A request's
time is parsing, decoding and resizing (`compute_input`), waiting for a run (`queue`), the run (`compute_infer`), and
making the answer (`compute_output`).
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any


class Execution:
    """One run of an engine. Requests of several models may share it, and each model counts it once."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self._counted: set[str] = set()
        self._lock = threading.Lock()

    def first_of(self, model: str) -> bool:
        """Whether this is the first time that somebody asks for `model`. Raises nothing."""
        with self._lock:
            new = model not in self._counted
            self._counted.add(model)
            return new


@dataclass(frozen=True)
class Spent:
    """Where the time of a request went that succeeded, nanoseconds.

    whole: from the moment that its bytes were there to its answer.
    queue: waiting for a run.
    input: making the engine's inputs of the request.
    infer: the run, which others may have shared.
    output: making the answer of the engine's outputs.
    """

    whole: int
    queue: int
    input: int
    infer: int
    output: int


class _Durations:
    """A number of events, and the sum of their durations in nanoseconds, for each of several kinds."""

    def __init__(self, *kinds: str) -> None:
        self._sums = {kind: [0, 0] for kind in kinds}

    def add(self, kind: str, nanoseconds: int, count: int = 1) -> None:
        entry = self._sums[kind]
        entry[0] += count
        entry[1] += nanoseconds

    def copy(self) -> dict[str, dict[str, int]]:
        return {kind: {"count": count, "ns": ns} for kind, (count, ns) in self._sums.items()}


_REQUEST = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")
_BATCH = ("compute_input", "compute_infer", "compute_output")


class ModelStatistics:
    """The counters of one model. Any thread may use them. No method raises an error."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._last = self._rows = self._runs = 0
        self._requests = _Durations(*_REQUEST)
        # One entry for each number of rows that a run can have, so at most as many as the engine's batch.
        self._batches: defaultdict[int, _Durations] = defaultdict(lambda: _Durations(*_BATCH))

    def succeeded(self, spent: Spent, rows: int, execution: Execution) -> None:
        """Counts a request that has its answer.

        rows: pairs of images in it. execution: the run that it was in.
        """
        new = execution.first_of(self._name)
        times = {"compute_input": spent.input, "compute_infer": spent.infer, "compute_output": spent.output}
        with self._lock:
            self._last = time.time_ns() // 1_000_000
            self._rows += rows
            self._runs += new
            for kind, nanoseconds in {"success": spent.whole, "queue": spent.queue, **times}.items():
                self._requests.add(kind, nanoseconds)
            batch = self._batches[execution.rows]
            for kind, nanoseconds in times.items():
                # A run's own time is not the sum over those who share it; the rest of their times is.
                batch.add(kind, nanoseconds if new or kind != "compute_infer" else 0, count=int(new))

    def failed(self, nanoseconds: int) -> None:
        """Counts a request that has failed after that time, whoever is to blame."""
        with self._lock:
            self._requests.add("fail", nanoseconds)

    def describe(self, version: str) -> dict[str, Any]:
        """The extension's description of the model: that of HTTP's JSON, and of the message ModelStatistics."""
        with self._lock:
            return {
                "name": self._name,
                "version": version,
                "last_inference": self._last,
                "inference_count": self._rows,
                "execution_count": self._runs,
                "inference_stats": self._requests.copy(),
                "batch_stats": [{"batch_size": rows, **self._batches[rows].copy()} for rows in sorted(self._batches)],
            }
