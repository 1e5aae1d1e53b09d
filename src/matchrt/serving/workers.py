"""The threads that run one engine, each on a fork of its session. Pairs that wait together share a run."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from matchrt.runtime.session import Session
from matchrt.serving.failures import draining
from matchrt.serving.statistics import Execution

Rows = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Run:
    """A run of an engine, as one request sees it.

    outputs: the engine's outputs for the request's rows, `[rows, ...]` by name.
    milliseconds: how long the run took.
    began: when it began, in nanoseconds of `time.perf_counter_ns`.
    execution: the run itself, which other requests may share.
    """

    outputs: dict[str, npt.NDArray[Any]]
    milliseconds: float
    began: int
    execution: Execution


@dataclass(frozen=True)
class _Waiting:
    inputs: Rows
    rows: int
    result: Future[Run] = field(default_factory=Future)


class EngineWorkers:
    """Runs an engine in `count` threads.

    session: of the engine; the workers close it.
    count: number of threads.
    wait: seconds that a run waits for more rows, if the engine takes several.
    seen: called with the rows and the milliseconds of every run.

    The queue is not limited here; the service limits it by admitting requests. Errors: those of `Session.fork`.
    """

    def __init__(self, session: Session, count: int, wait: float, seen: Callable[[int, float], None]) -> None:
        self._batch, self._wait, self._seen = session.manifest.input.batch, wait, seen
        self._any_batch = session.manifest.input.any_batch
        self._waiting: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._closed = False
        # The first worker uses the session itself, so that closing the workers closes every session.
        self._sessions = [session, *(session.fork() for _ in range(count - 1))]
        self._threads = [
            threading.Thread(target=self._serve, args=(own,), name=f"matchrt-worker-{number}", daemon=True)
            for number, own in enumerate(self._sessions)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, inputs: Rows) -> Future[Run]:
        """Queues rows of the engine's inputs, each `[rows, ...]`, with at most as many rows as the engine's batch.

        Returns a future of the run. Errors: server-draining if the workers are closed; the future has those of
        `Session.run`.
        """
        waiting = _Waiting(inputs, len(next(iter(inputs.values()))))
        with self._changed:
            if self._closed:
                raise draining()
            self._waiting.append(waiting)
            self._changed.notify()
        return waiting.result

    @property
    def depth(self) -> int:
        """The number of requests that wait for a run."""
        return len(self._waiting)

    def close(self) -> None:
        """Ends the threads after the runs under way, and closes the sessions. Waiting requests are cancelled."""
        with self._changed:
            self._closed = True
            for waiting in self._waiting:
                waiting.result.cancel()
            self._waiting.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        for session in self._sessions:
            session.close()

    def _serve(self, session: Session) -> None:
        while group := self._take():
            self._run(session, group)

    def _take(self) -> list[_Waiting]:
        """The requests of the next run; empty when the workers are closed."""
        with self._changed:
            while not (group := self._fill([])):
                if self._closed:
                    return []
                self._changed.wait()
            end = time.monotonic() + self._wait
            while sum(item.rows for item in group) < self._batch and not self._closed:
                left = end - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    break
                group = self._fill(group)
            return group

    def _fill(self, group: list[_Waiting]) -> list[_Waiting]:
        """The group, with the waiting requests that still fit, in the order of arrival."""
        rows = sum(item.rows for item in group)
        while self._waiting and rows + self._waiting[0].rows <= self._batch:
            item = self._waiting.popleft()
            if item.result.set_running_or_notify_cancel():
                group.append(item)
                rows += item.rows
        return group

    def _run(self, session: Session, group: list[_Waiting]) -> None:
        start = time.perf_counter_ns()
        try:
            rows = sum(item.rows for item in group)
            fewest = rows_of_run(rows, self._batch, session.asynchronous) if self._any_batch else self._batch
            outputs = session.run(_stack(group, fewest))
            milliseconds = (time.perf_counter_ns() - start) / 1e6
            # These are copies, because engines write their next results into the same memory.
            parts, first = [], 0
            for item in group:
                parts.append({name: array[first : first + item.rows].copy() for name, array in outputs.items()})
                first += item.rows
        except Exception as error:
            for item in group:
                item.result.set_exception(error)
            return
        self._seen(first, milliseconds)
        execution = Execution(first)
        for item, own in zip(group, parts, strict=True):
            item.result.set_result(Run(own, milliseconds, start, execution))


def rows_of_run(rows: int, batch: int, on_gpu: bool) -> int:
    """How many rows a run has that `rows` rows (1 to `batch`) are waiting for, for engines that take any number.

    A GPU's session keeps memory and a CUDA graph ready for each number of rows, and the first run of each compiles
    kernels. There it is the next power of two, or the largest batch. Raises nothing.
    """
    return min(1 << (rows - 1).bit_length(), batch) if on_gpu else rows


def _stack(group: list[_Waiting], count: int) -> dict[str, npt.NDArray[Any]]:
    """One `[count, ...]` array for each input: the rows of all requests, then the last row again to fill it up."""
    missing = count - sum(item.rows for item in group)
    if len(group) == 1 and missing == 0:
        return dict(group[0].inputs)
    return {
        name: np.concatenate([*(item.inputs[name] for item in group), *[group[-1].inputs[name][-1:]] * missing])
        for name in group[0].inputs
    }
