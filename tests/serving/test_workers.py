"""The threads that run one engine."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from support.serving_stub import SIDE, StubSession

from matchrt.serving import workers
from matchrt.serving.workers import EngineWorkers


def _rows() -> dict[str, np.ndarray]:
    images = {f"image{index}": np.zeros((1, SIDE, SIDE, 1), np.uint8) for index in (0, 1)}
    return images | {f"size{index}": np.full((1, 2), SIDE, np.int32) for index in (0, 1)}


class _Forking(StubSession):
    """Counts its forks, and its closings with theirs."""

    forks = 0

    def fork(self) -> _Forking:
        self.forks += 1
        return self


@pytest.mark.parametrize("count", [1, 2, 3])
def test_each_worker_has_a_session_and_all_are_closed(count: int) -> None:
    session = _Forking()
    made = EngineWorkers(session, count, 0.0, lambda rows, milliseconds: None)
    made.submit(_rows()).result(30)
    made.close()
    assert session.forks == count - 1 and session.closed == count


def test_the_time_of_a_run_is_in_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of this test goes on by a quarter of a second whenever somebody looks at it."""

    class Clock:
        monotonic = staticmethod(workers.time.monotonic)
        perf_counter_ns = staticmethod(itertools.count(0, 250_000_000).__next__)

    monkeypatch.setattr(workers, "time", Clock)
    seen: list[tuple[int, float]] = []
    made = EngineWorkers(StubSession(), 1, 0.0, lambda rows, milliseconds: seen.append((rows, milliseconds)))
    run = made.submit(_rows()).result(30)
    made.close()
    assert run.milliseconds == 250.0 and seen == [(1, 250.0)]
