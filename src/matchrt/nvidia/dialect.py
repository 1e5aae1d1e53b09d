"""What differs between the TensorRT modules, behind one interface: each has its file (tensorrt10, tensorrt11, rtx)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from matchrt.manifest import Portability

HardwareLevel = Literal["exact", "same-compute-capability", "ampere-plus"]


@dataclass(frozen=True)
class BuilderOptions:
    """How an engine is built. Precision is not among it: it is written into the graph.

    targets: compute capabilities to build for, as `8.9`; empty for the backend's default.
    workspace: bytes of GPU memory that the builder and a layer may use; None for no limit.
    optimization_level: 0 (fast build) to 5 (slow build, perhaps a faster engine); None for the backend's default.
    tf32: let float32 products run on TF32 tensor cores: 10 mantissa bits instead of 23.
    timing_cache: file of kernel timings that make the next build fast; None for none.
    """

    targets: tuple[str, ...] = ()
    hardware: HardwareLevel = "exact"
    version_compatible: bool = False
    workspace: int | None = None
    optimization_level: int | None = None
    tf32: bool = False
    timing_cache: Path | None = None


class Dialect(Protocol):
    """One version of one TensorRT module."""

    @property
    def backend(self) -> str:
        """As in `--backend`."""
        ...

    @property
    def trt(self) -> Any:
        """The module."""
        ...

    @property
    def version(self) -> str:
        """Of the module, in full."""
        ...

    def check_options(self, options: BuilderOptions) -> None:
        """Error: build-option, where the backend does not have what is asked for."""
        ...

    def rounds_products(self, options: BuilderOptions) -> bool:
        """Whether fp32 products become TF32 although `options` do not ask for it."""
        ...

    def network_flags(self) -> int:
        """Flags of a strongly typed network."""
        ...

    def configure(self, config: Any, options: BuilderOptions) -> None:
        """Sets what the backends name or mean differently."""
        ...

    def portability(self, options: BuilderOptions, here: str | None) -> Portability:
        """Where the engine will run; `here` is the compute capability of the machine that builds, None without GPU."""
        ...

    def open_kernels(self, engine: Any, known: bytes | None) -> Any:
        """The cache of kernels compiled on this machine, filled with `known`; None where the backend compiles none."""
        ...

    def kernel_bytes(self, kernels: Any) -> bytes:
        """What to keep of the cache for the next run."""
        ...

    def make_context(self, engine: Any, kernels: Any) -> Any:
        """An execution context whose scratch memory the caller provides; `kernels` as from `open_kernels`."""
        ...

    def refusal(self, runtime: Any, data: bytes) -> str | None:
        """Why the vendor's check of the header refuses the engine here, before it is loaded; None where it does not."""
        ...

    def unlisted(self, runtime: Any, data: bytes) -> bool:
        """Whether the vendor's check says that this GPU is not among those that the engine is supported on."""
        ...

    def capture_refusal(self, context: Any, stream: int) -> str | None:
        """Why a CUDA graph of the context cannot be captured now; None where it can, or where nobody can tell."""
        ...
