"""A loaded engine that runs named arrays to named arrays; the same protocol for every backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from matchrt.errors import MatchRTError
from matchrt.manifest import EngineManifest, Profile

Arrays = Mapping[str, npt.NDArray[Any]]
Device = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class SessionOptions:
    """How to run.

    threads: CPU threads of one run; None for the runtime's choice.
    device: where to run; None for where the engine's backend runs (ONNX Runtime: the CPU). Nothing falls back.
    cuda_graph: launch a run as one CUDA graph where the engine allows it (TensorRT).
    integer_kernels: run Q/DQ graphs with 8-bit kernels; without, as they are written, in floating point (ONNX Runtime).
    spin: idle threads of a run wait busily for more, which costs others on the machine their time; the results are the
    same (ONNX Runtime).
    """

    threads: int | None = None
    device: Device | None = None
    cuda_graph: bool = True
    integer_kernels: bool = True
    spin: bool = True


@dataclass(frozen=True)
class SessionMemory:
    """Bytes that a session holds besides the engine: scratch and tensors on the GPU, pinned in host memory."""

    scratch: int
    tensors: int
    pinned: int


class Pending(Protocol):
    """A run that was started."""

    def result(self) -> dict[str, npt.NDArray[Any]]:
        """Waits for the outputs, as `Session.run` gives them."""
        ...

    def timings(self) -> dict[str, float]:
        """Milliseconds by stage, as the device measured them; empty where it does not."""
        ...


@dataclass(frozen=True)
class Done:
    """A run that is over."""

    outputs: dict[str, npt.NDArray[Any]]

    def result(self) -> dict[str, npt.NDArray[Any]]:
        """The outputs."""
        return self.outputs

    def timings(self) -> dict[str, float]:
        """None of its own."""
        return {}


class Session(Protocol):
    """One engine, ready to run. Use one per thread."""

    @property
    def manifest(self) -> EngineManifest:
        """What is loaded."""
        ...

    def run(self, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        """Runs the engine; keys, types and shapes as the manifest lists them. Error: session-input."""
        ...

    @property
    def asynchronous(self) -> bool:
        """Whether `start` returns before the run is done."""
        ...

    def start(self, inputs: Arrays) -> Pending:
        """Starts a run; its result is to be taken before the next one is started."""
        ...

    def fork(self) -> Session:
        """A session for another thread, on the same loaded engine. Each is closed by itself."""
        ...

    def memory(self) -> SessionMemory | None:
        """What the session holds, where the backend knows."""
        ...

    def launch_mode(self) -> str:
        """How a run reaches the device: `call` in the caller's thread; of TensorRT `graph`, or `enqueue` and why."""
        ...

    def close(self) -> None:
        """Frees the engine; later runs raise `session-closed`."""
        ...


def check_inputs(inputs: Arrays, manifest: EngineManifest) -> None:
    """Raises `session-input` when names, types or shapes are not what the manifest says."""
    wanted = {spec.name: spec for spec in manifest.inputs}
    if set(inputs) != set(wanted):
        raise _bad_input(f"The engine takes {sorted(wanted)}, not {sorted(inputs)}.")
    for name, spec in wanted.items():
        array = inputs[name]
        fits = len(array.shape) == len(spec.shape) and all(
            isinstance(want, str) or want == have for want, have in zip(spec.shape, array.shape, strict=True)
        )
        if not fits or array.dtype != np.dtype(spec.dtype):
            message = f"Input {name} should be {spec.dtype} {list(spec.shape)}, is {array.dtype} {list(array.shape)}."
            raise _bad_input(message)
    if manifest.input.profile is not None:
        _check_profile(inputs, manifest.input.profile, manifest.input.divisor)


def _check_profile(inputs: Arrays, profile: Profile, divisor: int) -> None:
    for name in ("image0", "image1"):
        height, width = inputs[name].shape[1:3]
        (low_h, low_w), (high_h, high_w) = profile.minimum, profile.maximum
        if not (low_h <= height <= high_h and low_w <= width <= high_w):
            raise _bad_input(
                f"Input {name} is {height}x{width}; the engine takes {low_h}x{low_w} to {high_h}x{high_w}."
            )
        if height % divisor or width % divisor:
            raise _bad_input(f"Input {name} is {height}x{width}: not multiples of {divisor}.")


def _bad_input(message: str) -> MatchRTError:
    return MatchRTError("session-input", message, "Use Matcher, which prepares images as the engine wants them.")
