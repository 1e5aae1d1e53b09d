"""Progress and interruption of TensorRT builds.

TensorRT builds an engine in one long call. That call runs in a thread, so that the main thread receives Ctrl-C. The
builder is then told to stop at its next step, and the build leaves nothing behind.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from matchrt.runtime.backend import Tell

_POLL_S = 0.1
_START_S = 1.0


class BuildProgress:
    """Turns TensorRT's nested phases into one share (0..1). The share of a step is divided among the phases in it."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._phases: dict[str, tuple[float, float, int]] = {}  # name -> share at its begin, its share, number of steps
        self._done = 0.0
        self.cancelled = threading.Event()

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """Notes that a phase of so many steps begins, in the present step of its parent or as the whole build."""
        begin, extent = self._done, 1.0 - self._done
        if parent is not None and parent in self._phases:
            _, whole, count = self._phases[parent]
            extent = whole / max(count, 1)
        self._phases[name] = (begin, extent, steps)
        self._show(name, begin)

    def step(self, name: str, index: int) -> bool:
        """Notes that step `index` of a phase is done. Returns False to stop the build."""
        begin, extent, steps = self._phases.get(name, (self._done, 0.0, 1))
        self._show(name, begin + extent * (index + 1) / max(steps, 1))
        return not self.cancelled.is_set()

    def finish(self, name: str) -> None:
        """Notes that a phase ends."""
        begin, extent, _ = self._phases.pop(name, (self._done, 0.0, 1))
        self._show(name, begin + extent)

    def _show(self, name: str, done: float) -> None:
        self._done = max(self._done, min(done, 1.0))
        self._tell(name, self._done)


def make_monitor(trt: Any, progress: BuildProgress) -> Any:
    """A progress monitor for the TensorRT module `trt`, which reports to `progress`."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            progress.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return progress.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            progress.finish(phase_name)

    return Monitor()


def interruptible(work: Callable[[], Any], cancelled: threading.Event) -> Any:
    """Runs `work` in a thread and returns its result. On Ctrl-C it sets `cancelled` and waits until `work` has ended.

    Errors: whatever `work` raises; KeyboardInterrupt.
    """
    result: list[Any] = []
    failure: list[BaseException] = []
    begun = threading.Event()

    def run() -> None:
        begun.set()
        try:
            if not cancelled.is_set():
                result.append(work())
        except BaseException as error:  # handed to the waiting thread, which raises it
            failure.append(error)

    thread = threading.Thread(target=run, name="matchrt-build")
    try:
        thread.start()
        while thread.is_alive():
            thread.join(_POLL_S)
    except KeyboardInterrupt:
        cancelled.set()
        # Ctrl-C may come while the thread is being started. Then it may begin a little later, or never.
        if begun.wait(_START_S):
            thread.join()
        raise
    if failure:
        raise failure[0]
    return result[0]
