"""What a backend is: the runtime that an engine is built for and run by.

`Backend` says what the rest of matchrt needs to know of it before anything heavy is imported, makes its builder, and
opens its engines. The classes are in `matchrt.engines`, the table of them in `matchrt.runtime.backends`.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from matchrt.errors import MatchRTError
from matchrt.manifest import Portability, Profile, TensorSpec
from matchrt.nvidia.dialect import BuilderOptions
from matchrt.runtime.backends import BACKENDS, backend_names, require_backend

if TYPE_CHECKING:
    from matchrt.runtime.engine_file import EngineFile
    from matchrt.runtime.session import Device, Session, SessionOptions

# Called with what is being done and the share of the build, 0..1, that is behind it.
Tell = Callable[[str, float], None]


@dataclass(frozen=True)
class BuiltEngine:
    """What a builder gives.

    data: the engine's bytes.
    inputs, outputs: as the backend's runtime lists them.
    backend_version: of the runtime that built it.
    portability: where the bytes run.
    options: what the builder was told beyond its defaults, for people to read.
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
        """The backend's, as in `--backend`."""
        ...

    @property
    def suffix(self) -> str:
        """File ending of the engines, with its dot."""
        ...

    @property
    def version(self) -> str | None:
        """Of the installed runtime; None where the graph to build from does not depend on it."""
        ...

    @property
    def tf32(self) -> bool:
        """Whether the options let fp32 products keep 10 bits of mantissa instead of 23."""
        ...

    @property
    def rounds_products(self) -> bool:
        """Whether it computes fp32 products with fewer digits, unasked: the graph has to make up for it."""
        ...

    def identity(self) -> str:
        """What enters the cache key: version, device and options, as far as the engine depends on them."""
        ...

    def build(self, model: bytes, profile: Profile | None, tell: Tell) -> BuiltEngine:
        """Builds the ONNX `model`; profile: of a dynamic one.

        Errors: onnx-rejected, engine-rejected, device-missing.
        """
        ...


@dataclass(frozen=True)
class TritonPlatform:
    """How Triton serves engines of a backend.

    backend: Triton's own name of it. file: what the engine is called in a model repository.
    batches: engines built for several pairs can be given a first dimension of any size, so that Triton can batch.
    """

    backend: str
    file: str
    batches: bool = False


class Backend(ABC):
    """One backend. Facts are class attributes; importing the class and asking for them imports no runtime.

    name: as in `--backend` and in manifests.
    title: as its makers write it.
    suffix: file ending of its engines, with its dot.
    extra: of matchrt, which installs its packages; None where matchrt itself does.
    distributions: names under which package indexes have it, any of which will do.
    devices: where its engines run; the first one where nothing is asked for.
    host_memory: a run's scratch memory is the host's, so that it is asked first whether there is enough.
    onnx_engines: its engines are ONNX graphs: others are made from them, and their nodes can be shown.
    cuda_graphs: a run can be launched as one CUDA graph.
    builds: engines can be built for it.
    takes_weights: it runs a model's weights, by `open_weights`, and has no engine files.
    triton: how Triton serves its engines; None where it does not.
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
    takes_weights: ClassVar[bool] = False
    triton: ClassVar[TritonPlatform | None] = None

    @abstractmethod
    def builder(self, options: BuilderOptions) -> Builder:
        """Ready to build. Errors: build-option, package-*, device-missing; backend-unknown where it builds none."""

    @abstractmethod
    def open(self, engine: EngineFile, options: SessionOptions) -> Session:
        """Loads an engine. Errors: package-*, device-missing, engine-*, out-of-memory."""

    def open_weights(self, source: str | Path, options: SessionOptions) -> Session:
        """Opens a model from its weights, without an engine file: for backends that say `takes_weights`.

        Errors: engine-missing, engine-backend where the backend runs engine files, those of the backend.
        """
        raise MatchRTError(
            "engine-backend", f"Backend {self.name} runs engine files, not weights.", "Name an engine file."
        )

    def device(self, asked: Device | None = None) -> Device:
        """Where a run happens when a user asks for that device, or for none."""
        return asked or self.devices[0]

    def version(self) -> str | None:
        """Of the installed runtime, where the graph to build from depends on it; else None. Errors: package-*."""
        return None

    def quantization(self, precision: str, version: str | None = None) -> str:
        """Where it wants Q/DQ nodes for `int8` or `fp8`: the name of a style in `matchrt.export.quantization.styles`.

        version: of the backend, None for the newest. Error: precision-backend.
        """
        raise MatchRTError(
            "precision-backend", f"{self.title} has no {precision} kernels that matchrt knows.", "Use --precision fp32."
        )


def get_backend(name: str) -> Backend:
    """The backend of that name. Errors: backend-unknown, package-missing."""
    require_backend(name)
    module, _, kind = BACKENDS[name].partition(":")
    backend: Backend = getattr(importlib.import_module(module), kind)()
    return backend


def building_backends() -> tuple[str, ...]:
    """Names of the backends that engines can be built for."""
    return tuple(name for name in backend_names() if get_backend(name).builds)


def no_builder(name: str) -> MatchRTError:
    """The error of a backend that builds no engines."""
    return MatchRTError(
        "backend-unknown", f"Backend {name} builds no engines.", f"Those that do: {', '.join(building_backends())}."
    )
