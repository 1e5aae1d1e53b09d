"""How far a build is: nested phases as one share that only grows."""

from __future__ import annotations

import threading

import pytest

from matchrt.engines.progress import BuildProgress, interruptible


def test_nested_phases_give_one_share() -> None:
    told: list[tuple[str, float]] = []
    progress = BuildProgress(lambda what, done: told.append((what, done)))
    progress.start("build", None, 2)
    progress.start("timing", "build", 4)
    assert [progress.step("timing", index) for index in range(4)] == [True] * 4
    assert told[-1] == ("timing", 0.5)
    progress.finish("timing")
    progress.step("build", 0)
    progress.start("writing", "build", 1)
    assert told[-1] == ("writing", 0.5)
    progress.finish("writing")
    progress.finish("build")
    shares = [done for _, done in told]
    assert shares == sorted(shares) and shares[0] == 0.0 and shares[-1] == 1.0
    assert told[1:5] == [("timing", 0.0), ("timing", 0.125), ("timing", 0.25), ("timing", 0.375)]


@pytest.mark.parametrize("steps", [0, -1, 3])
def test_whatever_is_reported_the_share_stays_within_bounds(steps: int) -> None:
    """Phases without steps, phases of unknown parents, phases that nobody began, and late ones."""
    told: list[float] = []
    progress = BuildProgress(lambda what, done: told.append(done))
    progress.step("nobody began it", 7)
    progress.finish("nor this")
    progress.start("a", "unknown", steps)
    progress.start("b", "a", steps)
    progress.step("b", 10)
    progress.finish("a")
    progress.step("b", 11)
    progress.start("c", None, steps)
    progress.finish("c")
    assert told == sorted(told) and told[0] >= 0.0 and told[-1] <= 1.0


def test_a_stopped_build_hears_so_at_its_next_step() -> None:
    progress = BuildProgress(lambda what, done: None)
    progress.start("build", None, 3)
    assert progress.step("build", 0)
    progress.cancelled.set()
    assert not progress.step("build", 1)


def test_ctrl_c_while_the_thread_is_being_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waited for all the same: or the build would go on behind the user's back."""
    stop, ended = threading.Event(), threading.Event()
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        raise KeyboardInterrupt

    def work() -> None:
        assert stop.wait(20)
        ended.set()

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        interruptible(work, stop)
    assert ended.is_set()


def test_work_in_a_thread_returns_and_raises_as_if_it_was_not() -> None:
    stop = threading.Event()
    main = threading.get_ident()
    assert interruptible(threading.get_ident, stop) != main
    with pytest.raises(ZeroDivisionError):
        interruptible(lambda: 1 // 0, stop)
    assert not stop.is_set()
