"""What a backend is: the runtime that an engine is built for and run by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from matchrt.errors import MatchRTError
from matchrt.manifest import Portability, Profile, TensorSpec
from matchrt.nvidia.dialect import BuilderOptions
from matchrt.nvidia.modules import BACKENDS as NVIDIA

# Called with what is being done and the share of the build that is behind it.
Tell = Callable[[str, float], None]


@dataclass(frozen=True)
class BuiltEngine:
    """The engine's bytes and what its runtime says of them; options: what the builder was told, for people to read."""

    data: bytes
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    backend_version: str
    portability: Portability
    options: dict[str, str] = field(default_factory=dict)


class Backend(Protocol):
    """One runtime. `suffix` is the engine's file ending, `identity` what else than the graph decides its bytes."""

    @property
    def name(self) -> str:
        """As in `--backend`."""
        ...

    @property
    def suffix(self) -> str:
        """File ending with its dot."""
        ...

    @property
    def rounds_products(self) -> bool:
        """Whether it computes fp32 products with fewer digits, unasked: the graph has to make up for it."""
        ...

    def identity(self) -> str:
        """What enters the cache key: version, device and options, as far as the engine depends on them."""
        ...

    def build(self, model: bytes, profile: Profile | None, tell: Tell) -> BuiltEngine:
        """Builds the ONNX `model`; profile: of a dynamic one. Errors: engine-rejected, device-missing."""
        ...


def backend_names() -> tuple[str, ...]:
    """The backends that `build` knows."""
    return ("onnxruntime", *NVIDIA)


def get_backend(name: str, options: BuilderOptions | None = None) -> Backend:
    """The backend of that name, ready to build. Errors: backend-unknown, build-option, package-*, device-missing."""
    options = options or BuilderOptions()
    if name == "onnxruntime":
        from matchrt.engines.onnxruntime import OnnxRuntimeBackend

        if options != BuilderOptions():
            raise MatchRTError(
                "build-option",
                "ONNX Runtime optimises a graph when it loads it: there is nothing to tell a builder.",
                "Leave the builder's options out, or choose --backend tensorrt or tensorrt_rtx.",
            )
        return OnnxRuntimeBackend()
    if name in NVIDIA:
        from matchrt.engines.tensorrt import TensorRTBackend
        from matchrt.nvidia.modules import open_dialect

        dialect = open_dialect(name)
        dialect.check_options(options)
        backend = TensorRTBackend(dialect, options)
        backend.require_gpu()  # said now, not after the export
        return backend
    raise MatchRTError("backend-unknown", f"There is no backend '{name}'.", f"Known: {', '.join(backend_names())}.")
