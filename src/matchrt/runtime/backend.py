"""What a backend is: the runtime that an engine is built for and run by.

`Backend` states the facts that the rest of matchrt needs before anything heavy is imported. It also makes the backend's
builder and opens its engines. The classes are in `matchrt.engines`, and `matchrt.runtime.backends` has the table of
them.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from matchrt.errors import MatchRTError
from matchrt.manifest import InputContract, Portability, TensorSpec
from matchrt.nvidia.dialect import BuilderOptions
from matchrt.runtime.backends import BACKENDS, backend_names, built_for, require_backend

if TYPE_CHECKING:
    from matchrt.runtime.engine_file import EngineFile
    from matchrt.runtime.session import Device, Session, SessionOptions

# Called with the name of the step that runs, and with the part of the build that is done, 0..1.
Tell = Callable[[str, float], None]


@dataclass(frozen=True)
class BuiltEngine:
    """What a builder returns.

    data: the engine's bytes.
    inputs: the input tensors, as the backend's runtime lists them.
    outputs: the output tensors, likewise.
    backend_version: the version of the runtime that built the engine.
    portability: on which GPUs and versions the bytes run.
    options: the builder's options that differ from the defaults, for people to read.
    """

    data: bytes
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    backend_version: str
    portability: Portability
    options: dict[str, str] = field(default_factory=dict)


class Builder(Protocol):
    """Builds engines of one backend under one set of options."""

    @property
    def name(self) -> str:
        """The backend's name, as in `--backend`."""
        ...

    @property
    def suffix(self) -> str:
        """The file ending of the engines, with its dot."""
        ...

    @property
    def version(self) -> str | None:
        """The version of the installed runtime; None if the graph to build from does not depend on it."""
        ...

    @property
    def tf32(self) -> bool:
        """Whether the options let fp32 products keep 10 bits of mantissa instead of 23."""
        ...

    @property
    def rounds_products(self) -> bool:
        """Whether the backend computes fp32 products with fewer digits even though nobody asked for it.

        The graph must then make up for that (`export.precision.exact_products`).
        """
        ...

    @property
    def fuses_reductions(self) -> bool:
        """Whether the backend compiles reductions and the arithmetic that they read to one kernel.

        The graph is then written with reductions where other operators would do (`export.precision.fused_argmax`).
        """
        ...

    def runs_here(self) -> bool:
        """Whether this machine has a GPU that its engines are for. Raises nothing."""
        ...

    def identity(self) -> str:
        """Text for the build key: version, device and options, as far as the engine depends on them."""
        ...

    def build(self, model: bytes, contract: InputContract | None, tell: Tell) -> BuiltEngine:
        """Builds an engine from an ONNX model.

        model: the bytes of the ONNX file.
        contract: the engine's input, with the ranges of sizes and of pairs; None for a graph of fixed shapes.
        tell: called with the progress.
        Errors: onnx-rejected, engine-rejected, device-missing.
        """
        ...


@dataclass(frozen=True)
class TritonPlatform:
    """How Triton serves engines of a backend.

    backend: Triton's own name of the backend.
    file: the engine's file name in a model repository.
    batches: whether engines that were built for a fixed number of pairs can get a first dimension of any size, which
        Triton needs to batch requests.
    """

    backend: str
    file: str
    batches: bool = False


class Backend(ABC):
    """One backend. The facts are class attributes; importing the class and reading them imports no runtime.

    name: as in `--backend` and in manifests.
    title: the name as its makers write it.
    suffix: the file ending of its engines, with its dot.
    extra: the extra of matchrt that installs its packages; None if matchrt itself installs them.
    distributions: its names in package indexes; any one of them will do.
    devices: where its engines run; the first one is the default.
    host_memory: whether a run takes its scratch memory from the host; if so, free memory is checked before a run.
    onnx_engines: whether its engines are ONNX graphs, from which other engines are made and whose nodes can be shown.
    cuda_graphs: whether a run can be launched as one CUDA graph.
    builds: whether engines can be built for it.
    builds_on_gpu: whether engines are built on the GPU that they are for; otherwise any machine builds them.
    lowest_target: the compute capability, such as `8.0`, from which on engines run that are built without `--target`;
        None if the backend has no targets.
    takes_weights: whether it runs a model's weights, by `open_weights`, and has no engine files.
    triton: how Triton serves its engines; None if Triton does not.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    suffix: ClassVar[str]
    extra: ClassVar[str | None] = None
    distributions: ClassVar[tuple[str, ...]] = ()
    devices: ClassVar[tuple[Device, ...]]
    host_memory: ClassVar[bool] = False
    onnx_engines: ClassVar[bool] = False
    cuda_graphs: ClassVar[bool] = False
    builds: ClassVar[bool] = True
    builds_on_gpu: ClassVar[bool] = False
    lowest_target: ClassVar[str | None] = None
    takes_weights: ClassVar[bool] = False
    triton: ClassVar[TritonPlatform | None] = None

    @abstractmethod
    def builder(self, options: BuilderOptions) -> Builder:
        """A builder with these options.

        Errors: build-option, package-*, device-missing; backend-unknown if the backend builds no engines.
        """

    @abstractmethod
    def open(self, engine: EngineFile, options: SessionOptions) -> Session:
        """Loads an engine. Errors: package-*, device-missing, engine-*, out-of-memory."""

    def open_weights(self, source: str | Path, options: SessionOptions) -> Session:
        """Opens a model from its weights, without an engine file; only for backends with `takes_weights`.

        source: a bundled model's name, or a file of weights.
        Errors: engine-missing; engine-backend if the backend runs engine files; those of the backend.
        """
        raise MatchRTError(
            "engine-backend", f"Backend {self.name} runs engine files, not weights.", "Name an engine file."
        )

    def device(self, asked: Device | None = None) -> Device:
        """The device of a run if a user asked for `asked`; None for no wish. Raises nothing."""
        return asked or self.devices[0]

    def version(self) -> str | None:
        """The version of the installed runtime; None if the graph to build from does not depend on it.

        Errors: package-*.
        """
        return None

    def quantization(self, precision: str, version: str | None = None) -> str:
        """Where the backend wants Q/DQ nodes: the name of a style in `matchrt.export.quantization.styles`.

        precision: `int8` or `fp8`.
        version: of the backend; None for the newest.
        Error: precision-backend if the backend has no such kernels.
        """
        raise MatchRTError(
            "precision-backend", f"{self.title} has no {precision} kernels that matchrt knows.", "Use --precision fp32."
        )

    def advice(self, precision: str, version: str | None = None) -> str | None:
        """What users should know before they build this precision; None if there is nothing to say. Raises nothing.

        version: of the backend; None if it is not known.
        """
        return None


def get_backend(name: str) -> Backend:
    """The backend of that name. Errors: backend-unknown, package-missing."""
    require_backend(name)
    module, _, kind = BACKENDS[name].partition(":")
    backend: Backend = getattr(importlib.import_module(module), kind)()
    return backend


def require_builds(name: str) -> None:
    """Refuses a name that no engine can be built for. Errors: backend-unknown, package-missing."""
    if name not in BACKENDS or not get_backend(name).builds:
        raise no_builder(name)


def building_backends() -> tuple[str, ...]:
    """Names of the backends that engines can be built for. Error: package-missing."""
    return tuple(name for name in backend_names() if get_backend(name).builds)


def no_builder(name: str) -> MatchRTError:
    """The error (backend-unknown) for a name that no engine can be built for. It is returned, not raised."""
    if built_for(name) != name:
        return MatchRTError(
            "backend-unknown",
            f"Backend {name} builds no engines; it runs those of {built_for(name)}.",
            f"Backends that build engines: {', '.join(building_backends())}; match with --backend {name}.",
        )
    return MatchRTError(
        "backend-unknown",
        f"Backend {name} builds no engines." if name in BACKENDS else f"There is no backend '{name}'.",
        f"Backends that build engines: {', '.join(building_backends())}.",
    )
