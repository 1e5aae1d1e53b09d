"""Matcher on an engine for GPUs, on stubs: pairs overlap, keep their order, and errors reach the right one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import pytest
from support.cuda_stub import OnGpu
from support.machines import KINDS, Machine, make_engine, save_engine
from support.pictures import texture

from matchrt import Matcher, MatcherOptions, Matches, MatchRTError
from matchrt.runtime.gpu.session import TensorRTSession

every_machine = pytest.mark.parametrize("machine", KINDS, indirect=True)


@pytest.fixture(autouse=True)
def kernels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda *names, **more: str(tmp_path))


@pytest.fixture
def engine(machine: Machine, tmp_path: Path) -> Path:
    return save_engine(make_engine(machine), tmp_path)


@pytest.fixture
def matcher(engine: Path) -> Iterator[Matcher]:
    with Matcher(engine) as opened:
        yield opened


def pairs(count: int) -> list[tuple[Any, Any]]:
    return [(texture(40, 60, 2 * seed), texture(50, 50, 2 * seed + 1)) for seed in range(count)]


def same(left: Any, right: Any) -> bool:
    return (
        isinstance(left, Matches)
        and isinstance(right, Matches)
        and np.array_equal(left.keypoints0, right.keypoints0)
        and np.array_equal(left.keypoints1, right.keypoints1)
        and np.array_equal(left.scores, right.scores)
    )


@every_machine
def test_matches_and_their_times(machine: Machine, matcher: Matcher) -> None:
    matches = matcher.match(*pairs(1)[0])
    assert len(matches) > 0 and matches.provenance.backend == machine.backend
    assert {"decode", "resize", "inference", "upload", "gpu", "download", "to_pixels"} <= set(matches.timings)
    matcher.warm_up()


@every_machine
@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
def test_match_many_keeps_the_order_and_equals_match(machine: Machine, matcher: Matcher, count: int) -> None:
    expected = [matcher.match(*pair) for pair in pairs(count)]
    many = list(matcher.match_many(iter(pairs(count))))
    assert len(many) == count and all(same(a, b) for a, b in zip(many, expected, strict=True))
    list(matcher.match_many(pairs(4)))
    held = machine.cuda.held()
    list(matcher.match_many(pairs(4)))
    assert machine.cuda.held() == held  # the second set of buffers is given back each time


def test_a_pair_is_started_before_the_last_one_is_collected(
    machine: Machine, matcher: Matcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    start, collect = TensorRTSession.start, TensorRTSession._collect
    monkeypatch.setattr(TensorRTSession, "start", lambda *a: (events.append("start"), start(*a))[1])
    monkeypatch.setattr(TensorRTSession, "_collect", lambda *a: (events.append("collect"), collect(*a))[1])
    list(matcher.match_many(pairs(4)))
    assert events == ["start", "start", "collect", "start", "collect", "start", "collect", "collect"]


@every_machine
def test_errors_come_in_their_turn(machine: Machine, matcher: Matcher) -> None:
    given = pairs(5)
    given[1], given[4] = (given[1][0], "missing.png"), ("missing.png", given[4][1])
    results = list(matcher.match_many(given, return_errors=True))
    assert [getattr(result, "code", None) for result in results] == [None, "image-missing", None, None, "image-missing"]
    for index in (0, 2, 3):
        assert same(results[index], matcher.match(*given[index]))
    taken: list[Any] = []
    with pytest.raises(MatchRTError, match=r"missing\.png"):
        taken.extend(matcher.match_many(given))
    assert len(taken) == 1
    assert same(matcher.match(*given[0]), results[0])  # nothing under way was left behind


@every_machine
def test_errors_of_the_engine_come_in_their_turn(machine: Machine, matcher: Matcher) -> None:
    expected = [matcher.match(*pair) for pair in pairs(4)]
    seen: list[Any] = []
    for result in matcher.match_many(pairs(4), return_errors=True):
        seen.append(result)
        machine.script.execute_fails = len(seen) == 1  # the third pair is started after the first is handed out
        machine.cuda.failing = {"cudaGraphLaunch": "cudaErrorLaunchFailure"} if len(seen) == 1 else {}
    assert same(seen[0], expected[0]) and same(seen[1], expected[1]) and same(seen[3], expected[3])
    assert seen[2].code in ("cuda-failed", "session-failed")


@every_machine
def test_what_comes_before_a_failing_iterator_is_delivered(machine: Machine, matcher: Matcher) -> None:
    def failing() -> Iterator[Any]:
        yield from pairs(3)
        raise ZeroDivisionError

    results: list[Any] = []
    with pytest.raises(ZeroDivisionError):
        results.extend(matcher.match_many(failing()))
    assert len(results) == 3
    assert len(matcher.match(*pairs(1)[0])) > 0


@every_machine
@pytest.mark.parametrize("taken", [1, 2])
def test_whoever_stops_early_can_go_on_matching(machine: Machine, matcher: Matcher, taken: int) -> None:
    expected = matcher.match(*pairs(1)[0])
    held = []
    for _ in range(4):
        many = matcher.match_many(pairs(6))
        for _ in range(taken):
            next(many)
        many.close()  # type: ignore[attr-defined]
        assert same(matcher.match(*pairs(1)[0]), expected)
        held.append(machine.cuda.held())
    assert held[3] == held[2]  # two sessions and their graphs, kept for the next call
    matcher.close()
    assert machine.cuda.held() == 0


@every_machine
def test_threads_with_forks_give_what_one_thread_gives(machine: Machine, engine: Path) -> None:
    """Four threads on one engine, each with its own stream, memory and context."""
    from matchrt.runtime.engine_file import read_engine
    from matchrt.runtime.opening import open_session

    random = np.random.default_rng(0)
    shape = (1, 32, 48, 1)
    batches = [
        {"image0": random.integers(0, 256, shape, np.uint8), "image1": random.integers(0, 256, shape, np.uint8),
         "size0": np.array([[32, 48]], np.int32), "size1": np.array([[32, index + 1]], np.int32)}
        for index in range(24)
    ]  # fmt: skip
    session = open_session(read_engine(engine))
    serial = [session.run(batch) for batch in batches]
    results: dict[tuple[int, int], Any] = {}
    failures: list[BaseException] = []

    def work(thread: int) -> None:
        try:
            mine = session.fork()
            for index, batch in enumerate(batches):
                results[thread, index] = mine.run(batch)
            mine.close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [] and len(results) == 4 * len(batches)
    for (_, index), outputs in results.items():
        assert all(np.array_equal(outputs[name], serial[index][name]) for name in outputs)
    assert machine.script.names().count("deserialize_cuda_engine") == 1
    session.close()
    assert machine.cuda.held() == 0


@every_machine
def test_closed(machine: Machine, engine: Path) -> None:
    matcher = Matcher(engine)
    matcher.match(*pairs(1)[0])
    matcher.close()
    assert machine.cuda.held() == 0 and matcher.manifest.model == "loftr-outdoor"
    for action in (lambda: matcher.match(*pairs(1)[0]), lambda: list(matcher.match_many(pairs(1)))):
        with pytest.raises(MatchRTError) as caught:
            action()
        assert caught.value.code == "session-closed"


@every_machine
def test_refused_options_leave_nothing_on_the_gpu(machine: Machine, engine: Path) -> None:
    with pytest.raises(MatchRTError) as caught:
        Matcher(engine, MatcherOptions(resize=640))
    assert caught.value.code == "resize-static" and machine.cuda.held() == 0


@every_machine
def test_host_runs_wait_for_runs_in_the_callers_stream(machine: Machine, engine: Path) -> None:
    """They share scratch memory, staging memory and outputs."""
    from matchrt.runtime.engine_file import read_engine
    from matchrt.runtime.gpu.route import FrameRoute

    session = TensorRTSession(read_engine(engine), _options())
    cuda = machine.cuda
    theirs = cuda.module.cudaStreamCreateWithFlags(1)[1]
    image = np.full((1, 32, 48, 1), 9, np.uint8)
    sizes = {f"size{i}": np.array([[32, 48]], np.int32) for i in (0, 1)}
    host = {"image0": image, "image1": image, **sizes}
    expected = session.run(host)
    route = FrameRoute(session.manifest, MatcherOptions())
    view = OnGpu(cuda, image)
    outputs = session.run_on_gpu(route.gpu_pair(view, view, theirs), theirs)
    assert len(cuda.streams[theirs].queue) > 0  # it returned before the work was done
    pending = session.start(host)
    assert cuda.streams[theirs].queue == []
    assert all(np.array_equal(value, expected[name]) for name, value in pending.result().items())
    del outputs
    session.run_on_gpu(route.gpu_pair(view, view, theirs), theirs)
    session.close()
    assert cuda.streams[theirs].queue == []


def _options() -> Any:
    from matchrt.runtime.session import SessionOptions

    return SessionOptions()
