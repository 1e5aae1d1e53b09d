"""TensorRT 10, where strong typing is a flag of the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from matchrt.manifest import Portability
from matchrt.nvidia.common import (
    configure_all,
    configure_compatibility,
    refuse_targets,
    require_hardware_level,
    tensorrt_portability,
)
from matchrt.nvidia.dialect import BuilderOptions


@dataclass(frozen=True)
class TensorRT10:
    """The module `tensorrt`, 10.1 and later.

    trt: the module.
    backend: its name in `--backend`.
    """

    trt: Any
    backend: str = "tensorrt"

    @property
    def version(self) -> str:
        """The module's full version."""
        return str(self.trt.__version__)

    def check_options(self, options: BuilderOptions) -> None:
        """Raises build-option for --target, and for a hardware compatibility that this version lacks."""
        refuse_targets(self.backend, options)
        require_hardware_level(self.trt, self.backend, options)

    def rounds_products(self, options: BuilderOptions) -> bool:
        """False: the builder's TF32 flag decides."""
        del options
        return False

    def network_flags(self) -> int:
        """The flag of strong typing: tensors have the types that the graph gives them."""
        return 1 << int(self.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)

    def configure(self, config: Any, options: BuilderOptions) -> None:
        """Sets all options; TensorRT 11 has the same names for them."""
        configure_all(self.trt, config, options)
        configure_compatibility(self.trt, config, options)

    def portability(self, options: BuilderOptions, here: str | None) -> Portability:
        """GPUs like the builder's, or more if the engine is built hardware-compatible."""
        return tensorrt_portability(options, here)

    def open_kernels(self, engine: Any, known: bytes | None) -> Any:
        """None: the kernels are in the engine, and there is nothing to keep."""
        del engine, known

    def kernel_bytes(self, kernels: Any) -> bytes:
        """Empty: there is nothing to keep."""
        del kernels
        return b""

    def make_context(self, engine: Any, kernels: Any) -> Any:
        """A context without scratch memory of its own."""
        del kernels
        return engine.create_execution_context(self.trt.ExecutionContextAllocationStrategy.USER_MANAGED)

    def refusal(self, runtime: Any, data: bytes) -> str | None:
        """None: this TensorRT has no check before loading."""
        del runtime, data
        return None

    def unlisted(self, runtime: Any, data: bytes) -> bool:
        """False: this TensorRT has no such check."""
        del runtime, data
        return False

    def capture_refusal(self, context: Any, stream: int) -> str | None:
        """None: this TensorRT cannot tell in advance."""
        del context, stream
        return None
