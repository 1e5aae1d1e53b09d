"""One interface for the TensorRT modules, which differ; each module has its file (tensorrt10, tensorrt11, rtx)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from matchrt.manifest import Portability

HardwareLevel = Literal["exact", "same-compute-capability", "ampere-plus"]


@dataclass(frozen=True)
class BuilderOptions:
    """How an engine is built. The precision is not an option: it is written into the graph.

    targets: compute capabilities to build for, as `8.9`; empty for the backend's default.
    hardware: on which other GPUs the engine should run: `exact` for none, `same-compute-capability`, or `ampere-plus`.
    version_compatible: whether later versions of the backend should run the engine too.
    workspace: bytes of GPU memory that the builder and a layer may use; None for no limit.
    optimization_level: 0 (fast build) to 5 (slow build, perhaps a faster engine); None for the backend's default.
    tf32: let float32 products run on TF32 tensor cores, with 10 mantissa bits instead of 23.
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
        """The backend's name, as in `--backend`."""
        ...

    @property
    def trt(self) -> Any:
        """The Python module."""
        ...

    @property
    def version(self) -> str:
        """The module's full version."""
        ...

    def check_options(self, options: BuilderOptions) -> None:
        """Raises build-option if the backend does not have an option that is asked for."""
        ...

    def rounds_products(self, options: BuilderOptions) -> bool:
        """Whether fp32 products become TF32 although `options` do not ask for it."""
        ...

    def network_flags(self) -> int:
        """The flags that make a strongly typed network."""
        ...

    def configure(self, config: Any, options: BuilderOptions) -> None:
        """Sets the options on a builder's configuration. Error: build-option."""
        ...

    def portability(self, options: BuilderOptions, here: str | None) -> Portability:
        """Where the engine will run.

        here: the compute capability of the machine that builds; None without a GPU.
        """
        ...

    def open_kernels(self, engine: Any, known: bytes | None) -> Any:
        """The cache of kernels that are compiled on this machine; None if the backend compiles none.

        known: the bytes of an earlier cache to fill it with; None for none.
        """
        ...

    def kernel_bytes(self, kernels: Any) -> bytes:
        """The bytes of the cache to keep for the next run; empty if there is nothing to keep."""
        ...

    def make_context(self, engine: Any, kernels: Any) -> Any:
        """An execution context whose scratch memory the caller provides; None if TensorRT cannot make one.

        kernels: as from `open_kernels`.
        """
        ...

    def refusal(self, runtime: Any, data: bytes) -> str | None:
        """Why the vendor's check of the header refuses the engine here, before it is loaded; None if it does not."""
        ...

    def unlisted(self, runtime: Any, data: bytes) -> bool:
        """Whether the vendor's check says that the engine is not supported on this GPU."""
        ...

    def capture_refusal(self, context: Any, stream: int) -> str | None:
        """Why a CUDA graph of the context cannot be captured now; None if it can, or if nobody can tell."""
        ...


def dtype_name(dtype: Any) -> str:
    """NumPy's name of a TensorRT type. Raises nothing."""
    name = str(getattr(dtype, "name", dtype)).lower()
    return {"float": "float32", "half": "float16"}.get(name, name)
