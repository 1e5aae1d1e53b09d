"""Whole calls on frames as cameras give them: RGB of several sizes, in host memory and on the GPU, and where time goes.

The time of an engine alone says little of what users wait for. Each call is measured from the frames to the matches in
host memory, and split in three: the engine, the copies between host and GPU, and the host's own work (colours, resize,
waiting, Python).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from matchrt.bench.latency import GPU, LatencyOptions, LatencyReport, Stage, SubjectLatency, measure
from matchrt.bench.scene import image_pair
from matchrt.errors import MatchRTError

if TYPE_CHECKING:
    from matchrt.runtime.matcher import Matcher

Place = Literal["host", "gpu"]
Size = tuple[int, int]
FRAMES: tuple[Size, ...] = ((480, 640), (720, 1280), (1080, 1920))
_ENGINE, _COPIES = "engine", "copies"


@dataclass(frozen=True)
class Call:
    """What is called.

    engine: its name in the report.
    size: (height, width) of both frames, pixels.
    place: where the frames are.
    """

    engine: str
    size: Size
    place: Place


@dataclass(frozen=True)
class CallTimes:
    """The times of a call, in milliseconds; medians of one run in turn with all others.

    call: what was called.
    total: the whole call, with its spread.
    engine: the engine's own work: by the GPU's clock, or the run on a CPU.
    copies: copies between host and GPU, by the GPU's clock.
    host: the rest.
    """

    call: Call
    total: Stage
    engine: float
    copies: float
    host: float

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        shares = {name: round(getattr(self, name) / self.total.p50, 4) for name in ("host", "copies", "engine")}
        return {
            **_named(self.call),
            "total_ms": self.total.to_json(),
            "host_ms": round(self.host, 4),
            "copies_ms": round(self.copies, 4),
            "engine_ms": round(self.engine, 4),
            "shares": shares,
        }


@dataclass(frozen=True)
class Skipped:
    """A call that cannot be made.

    call: what should have been called.
    reason: why it cannot be.
    """

    call: Call
    reason: str

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {**_named(self.call), "skipped": self.reason}


@dataclass(frozen=True)
class CallReport:
    """All calls, measured in turn.

    options: how often.
    calls: the times, by engine, place and size.
    skipped: calls that could not be made.
    """

    options: LatencyOptions
    calls: tuple[CallTimes, ...]
    skipped: tuple[Skipped, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            **asdict(self.options),
            "order": "interleaved",
            "rows": [times.to_json() for times in self.calls],
            "skipped": [entry.to_json() for entry in self.skipped],
        }


def measure_calls(
    matchers: Mapping[str, Matcher],
    sizes: tuple[Size, ...],
    options: LatencyOptions,
    advance: Callable[[], None] | None = None,
) -> CallReport:
    """Measures every engine on frames of every size, in host memory and, if it runs on a GPU, on the GPU.

    sizes: (height, width) of the frames, pixels. advance: called after each round. A call that fails is left out, with
    its reason. Error: bench-runs.
    """
    subjects: dict[str, Callable[[], Mapping[str, float]]] = {}
    calls: dict[str, Call] = {}
    skipped = []
    for size in sizes:
        first, second, _ = image_pair(*size)
        for name, matcher in matchers.items():
            places: tuple[Place, ...] = ("host", "gpu") if matcher.session.asynchronous else ("host",)
            for place in places:
                call = Call(name, size, place)
                try:
                    subject = _subject(matcher, first, second, place)
                    subject()  # whether it can be made at all
                except MatchRTError as error:
                    skipped.append(Skipped(call, error.message))
                    continue
                label = f"{name} {size} {place}"
                subjects[label], calls[label] = subject, call
    if not subjects:
        return CallReport(options, (), tuple(skipped))
    report: LatencyReport = measure(subjects, options, advance=advance)
    times = tuple(_times(calls[subject.name], subject) for subject in report.subjects)
    return CallReport(options, tuple(sorted(times, key=_order(tuple(matchers)))), tuple(skipped))


def _named(call: Call) -> dict[str, Any]:
    return {"engine": call.engine, "frame": list(call.size), "frames_on": call.place}


def _order(names: tuple[str, ...]) -> Callable[[CallTimes], tuple[int, bool, Size]]:
    return lambda times: (names.index(times.call.engine), times.call.place == "gpu", times.call.size)


def _subject(
    matcher: Matcher, first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8], place: Place
) -> Callable[[], Mapping[str, float]]:
    frames: tuple[Any, Any] = (first, second)
    if place == "gpu":
        frames = _on_gpu(first), _on_gpu(second)

    def call() -> Mapping[str, float]:
        stages = matcher.match(*frames).timings
        copies = stages.get("upload", 0.0) + stages.get("download", 0.0)
        return {_ENGINE: stages.get(GPU, stages.get("inference", 0.0)), _COPIES: copies}

    return call


def _times(call: Call, subject: SubjectLatency) -> CallTimes:
    total = subject.stages["total"]
    engine, copies = subject.stages[_ENGINE].p50, subject.stages[_COPIES].p50
    return CallTimes(call, total, engine, copies, max(total.p50 - engine - copies, 0.0))


def _on_gpu(pixels: npt.NDArray[np.uint8]) -> Any:
    """A frame in GPU memory, as users' libraries hold them. Errors: package-missing, cuda-failed, out-of-memory."""
    from matchrt.nvidia.cuda import call, cuda_runtime
    from matchrt.runtime.gpu.arrays import GpuArray
    from matchrt.runtime.gpu.memory import DeviceMemory

    runtime, memory = cuda_runtime(), DeviceMemory(pixels.nbytes)
    kind = runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
    call(runtime.cudaMemcpy, memory.pointer, np.ascontiguousarray(pixels).ctypes.data, pixels.nbytes, kind)
    return GpuArray(memory.pointer, pixels.shape, pixels.dtype, memory, None)
