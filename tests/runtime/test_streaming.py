"""Pair after pair: in order, by several threads, with no more pairs in memory than the engine needs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from support.serving_stub import SIDE, StubSession

from matchrt import Matches, MatchRTError
from matchrt.runtime.adapter import PairAdapter
from matchrt.runtime.streaming import preparing_threads, stream_matches


def level(value: int) -> Any:
    return np.full((SIDE, SIDE, 3), value, np.uint8)


class _Slow:
    """An image whose pixels take a while, and which notes how many are being read at the same time."""

    lock = threading.Lock()

    def __init__(self, value: int, seen: list[int], seconds: float) -> None:
        self.value, self.seen, self.seconds = value, seen, seconds

    def __array__(self, *unused: Any, **more: Any) -> Any:
        with self.lock:
            self.seen.append(1)
        time.sleep(self.seconds)
        with self.lock:
            self.seen.append(-1)
        return level(self.value)


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("count", [1, 2])
def test_results_come_in_order_and_no_more_pairs_are_read_than_are_needed(workers: int, count: int) -> None:
    sessions = [StubSession() for _ in range(count)]
    read: list[int] = []

    def pairs() -> Iterator[Any]:
        for index in range(20):
            read.append(index)
            yield level(index), level(100 + index)

    found = []
    for outcome in stream_matches(PairAdapter(sessions[0].manifest), sessions, pairs(), workers):
        assert isinstance(outcome, Matches)
        found.append((float(outcome.keypoints0[0, 0]), float(outcome.keypoints1[0, 0])))
        assert outcome.timings["wait"] >= 0
        assert len(read) <= len(found) + workers + count + 1
    assert found == [(index, 100 + index) for index in range(20)]
    assert [len(session.runs) for session in sessions] == ([20] if count == 1 else [10, 10])


def test_several_threads_prepare_at_the_same_time_and_errors_keep_their_place() -> None:
    seen: list[int] = []
    session = StubSession()
    # Turns vary, so that later pairs are ready before earlier ones.
    pairs: list[Any] = [(_Slow(i, seen, 0.05 if i % 3 == 0 else 0.0), level(i)) for i in range(9)]
    pairs[4] = (level(4), "missing.png")
    outcomes = list(stream_matches(PairAdapter(session.manifest), [session], pairs, 4))
    assert [getattr(outcome, "code", None) for outcome in outcomes] == [None] * 4 + ["image-missing"] + [None] * 4
    kept = [outcome for outcome in outcomes if isinstance(outcome, Matches)]
    assert [float(matches.keypoints0[0, 0]) for matches in kept] == [0, 1, 2, 3, 5, 6, 7, 8]
    assert max(np.cumsum(seen)) >= 2


def test_a_failing_run_is_the_outcome_of_its_pair() -> None:
    session = StubSession()
    session.failure = MatchRTError("out-of-memory", "No memory.", "Buy some.")
    outcomes = list(stream_matches(PairAdapter(session.manifest), [session], [(level(1), level(2))] * 3, 2))
    assert [getattr(outcome, "code", None) for outcome in outcomes] == ["out-of-memory"] * 3


def test_engines_on_the_cpu_get_one_thread_and_those_on_a_gpu_as_many_as_help() -> None:
    session = StubSession()
    assert preparing_threads([session]) == 1
    session.asynchronous = True
    assert 1 <= preparing_threads([session]) <= 8
