"""A loaded engine that turns named arrays into named arrays; the protocol is the same for every backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from matchrt.errors import MatchRTError
from matchrt.manifest import FRAMES, EngineManifest, FrameContract, Profile

Arrays = Mapping[str, npt.NDArray[Any]]
Device = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class SessionOptions:
    """How to run.

    threads: CPU threads of one run; None for the runtime's choice.
    device: where to run; None for where the engine's backend runs (ONNX Runtime: the CPU). Nothing falls back to
        another device.
    cuda_graph: launch a run as one CUDA graph if the engine allows it (TensorRT).
    integer_kernels: True runs Q/DQ graphs with 8-bit kernels; False runs them as they are written, in floating point
        (ONNX Runtime).
    self_test: run the engine's self-test before its first use in these circumstances (`Session.circumstances`).
    keep_kernels: keep the kernels that are compiled on this machine for the next start (TensorRT for RTX).
    spin: True lets idle threads of a run wait busily, which takes time from others on the machine; the results are the
        same (ONNX Runtime).
    """

    threads: int | None = None
    device: Device | None = None
    cuda_graph: bool = True
    integer_kernels: bool = True
    spin: bool = True
    self_test: bool = True
    keep_kernels: bool = True


@dataclass(frozen=True)
class SessionMemory:
    """Bytes that a session holds besides the engine.

    scratch: the engine's working memory on the GPU, bytes.
    tensors: inputs and outputs on the GPU, bytes.
    pinned: page-locked host memory, bytes.
    """

    scratch: int
    tensors: int
    pinned: int


class Pending(Protocol):
    """A run that has been started."""

    def result(self) -> dict[str, npt.NDArray[Any]]:
        """Waits for the outputs and returns them: arrays `[B, ...]` by name, as `Session.run` does.

        Errors: those of a run, such as session-closed, cuda-failed.
        """
        ...

    def lent(self) -> dict[str, npt.NDArray[Any]]:
        """Waits for the outputs and returns them as `result` does, but without a copy: the session's next run, and
        closing it, overwrite them.

        Errors: those of `result`.
        """
        ...

    def timings(self) -> dict[str, float]:
        """Milliseconds by stage, as the device measured them; empty if it does not measure. Waits for the run.

        Errors: those of `result`.
        """
        ...


@dataclass(frozen=True)
class Done:
    """A run that is over.

    outputs: arrays `[B, ...]` by name.
    """

    outputs: dict[str, npt.NDArray[Any]]

    def result(self) -> dict[str, npt.NDArray[Any]]:
        """The outputs: arrays `[B, ...]` by name. Raises nothing."""
        return self.outputs

    def lent(self) -> dict[str, npt.NDArray[Any]]:
        """The outputs: arrays `[B, ...]` by name. Raises nothing."""
        return self.outputs

    def timings(self) -> dict[str, float]:
        """An empty dict: only an asynchronous run measures stages. Raises nothing."""
        return {}


class Session(Protocol):
    """One engine, ready to run. Use one session per thread (`fork`)."""

    @property
    def manifest(self) -> EngineManifest:
        """The loaded engine's manifest; also after `close`."""
        ...

    def run(self, inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        """Runs the engine and returns its outputs, arrays `[B, ...]` by name, which belong to the caller.

        inputs: arrays `[B, ...]` by name in host memory; names, types and shapes as the manifest lists them, B being
            the engine's batch.
        Errors: session-input, session-closed, session-busy, session-failed, out-of-memory, cuda-failed.
        """
        ...

    @property
    def asynchronous(self) -> bool:
        """Whether `start` returns before the run is done."""
        ...

    def start(self, inputs: Arrays) -> Pending:
        """Starts a run. Its result must be taken before the next run is started.

        inputs: arrays `[B, ...]` by name, as for `run`. Errors: those of `run`.
        """
        ...

    def staging(self, shapes: Mapping[str, tuple[int, ...]]) -> Arrays | None:
        """The session's own input arrays for inputs of these shapes, to write the next run's inputs into.

        shapes: `[B, ...]` of the images, and of their smaller copies, by name.

        What lies there when `start` gets the same arrays is not copied once more. They hold whatever the last run left
        in them, and are valid until the next `start`. None if a run reads the caller's own arrays, or if the session
        has not run on such shapes yet. Errors: session-closed, session-busy.
        """
        ...

    def fork(self) -> Session:
        """A session for another thread, on the same loaded engine. Each is closed by itself. Error: session-closed."""
        ...

    def memory(self) -> SessionMemory | None:
        """What the session holds; None if the backend does not know. Raises nothing."""
        ...

    def launch_mode(self) -> str:
        """How a run reaches the device. Raises nothing.

        It is `call` for a run in the caller's thread. TensorRT's sessions say `graph`, or `enqueue` and why.
        """
        ...

    def device(self) -> str:
        """The device and the backend that run the engine, for people. Raises nothing."""
        ...

    def circumstances(self) -> str | None:
        """What decides the self-test's results besides the engine's bytes, as text: GPU, driver, versions, kernels.

        None if the results do not depend on the machine, so that no self-test is needed. Raises nothing.
        """
        ...

    def drop_kept_kernels(self) -> bool:
        """Deletes kernels that an earlier start left for the self-test's shapes; later runs compile them anew.

        Returns whether there were some. Raises nothing.
        """
        ...

    def close(self) -> None:
        """Frees the engine; later runs raise `session-closed`. More than one call does no harm."""
        ...


def check_inputs(inputs: Arrays, manifest: EngineManifest) -> None:
    """Raises `session-input` if names, types or shapes `[B, ...]` of the inputs are not what the manifest says.

    A dynamic engine's images must also be within its profile, with sides that are multiples of its divisor.
    """
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
    if manifest.input.any_batch:
        _check_pairs(inputs, manifest.input.batch)
    if manifest.input.profile is not None:
        _check_profile(inputs, manifest.input.profile, manifest.input.divisor)
    if manifest.input.frames is not None and manifest.input.frames.sizes is None:
        _check_frames(inputs, manifest.input.frames)


def _check_frames(inputs: Arrays, frames: FrameContract) -> None:
    """The frames of a range of sizes, and the matrices beside them."""
    for side, name in enumerate(FRAMES):
        rows, width = inputs[name].shape[1:3]
        if not frames.takes((rows, width), side):
            raise _bad_input(f"Input {name} is {rows}x{width}; the engine takes {frames}.")
        for prefix in ("", "coarse_"):
            left, right = f"{prefix}rows{side}", f"{prefix}columns{side}"
            if left in inputs and (inputs[left].shape[1], inputs[right].shape[0]) != (rows, width):
                raise _bad_input(
                    f"Inputs {left} and {right} are for another size than {name}, which is {rows}x{width}."
                )


def _check_pairs(inputs: Arrays, most: int) -> None:
    rows = {len(array) for array in inputs.values()}
    if len(rows) != 1 or not 1 <= max(rows) <= most:
        raise _bad_input(f"The inputs have {sorted(rows)} rows; the engine takes 1 to {most} pairs, the same in each.")


def _check_profile(inputs: Arrays, profile: Profile, divisor: int) -> None:
    for name in ("image0", "image1"):
        if name not in inputs:  # a part of an engine may take one image, or none
            continue
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
