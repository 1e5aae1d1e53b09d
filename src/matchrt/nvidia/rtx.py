"""TensorRT for RTX, whose engines are built on any machine, for a list of GPUs.

A compiler on the GPU's machine finishes an engine when it is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from matchrt.errors import MatchRTError
from matchrt.manifest import Portability
from matchrt.nvidia.common import AMPERE, configure_all
from matchrt.nvidia.dialect import BuilderOptions


@dataclass(frozen=True)
class TensorRTRTX:
    """The module `tensorrt_rtx`, 1.4 and later. Its networks are always strongly typed.

    trt: the module.
    backend: its name in `--backend`.
    """

    trt: Any
    backend: str = "tensorrt_rtx"

    @property
    def version(self) -> str:
        """The module's full version."""
        return str(self.trt.__version__)

    def targets(self) -> tuple[str, ...]:
        """The compute capabilities that this version can build for, as `8.9`."""
        names = [name for name in dir(self.trt.ComputeCapability) if name.startswith("SM")]
        return tuple(f"{name[2:-1]}.{name[-1]}" for name in sorted(names, key=lambda name: int(name[2:])))

    def check_options(self, options: BuilderOptions) -> None:
        """Raises build-option for an unknown target, and for options that only full TensorRT has."""
        known = self.targets()
        for target in options.targets:
            if target not in known:
                raise MatchRTError(
                    "build-option",
                    f"TensorRT-RTX {self.version} has no target {target}.",
                    f"It has {', '.join(_sm(name) for name in known)}; without --target an engine runs on all from "
                    "Ampere (sm80) on.",
                )
        if len(set(options.targets)) < len(options.targets):
            raise MatchRTError("build-option", "--target names a GPU twice.", "Name each GPU once.")
        wrong = {
            "--hardware-compatible": options.hardware != "exact",
            "--version-compatible": options.version_compatible,
            "--timing-cache": options.timing_cache is not None,
        }
        for name, given in wrong.items():
            if given:
                raise MatchRTError(
                    "build-option",
                    f"{name} belongs to backend tensorrt; TensorRT-RTX has nothing like it.",
                    "Leave it out: without --target an RTX engine runs on every GPU from Ampere (sm80) on.",
                )

    def rounds_products(self, options: BuilderOptions) -> bool:
        """True for GPUs that have TF32, which are those from Ampere on.

        The builder's flag changes nothing (measured with 1.4). Turing multiplies in fp32, and has no bfloat16 to split
        factors with.
        """
        return not options.tf32 and all(float(target) >= float(AMPERE) for target in options.targets)

    def network_flags(self) -> int:
        """No flags: every network is strongly typed."""
        return 0

    def configure(self, config: Any, options: BuilderOptions) -> None:
        """Sets the targets; without any, the engine is for every GPU from Ampere on. Error: build-option."""
        configure_all(self.trt, config, options)
        if options.targets:
            config.num_compute_capabilities = len(options.targets)
        for index, target in enumerate(options.targets):
            if not config.set_compute_capability(getattr(self.trt.ComputeCapability, _sm(target).upper()), index):
                raise MatchRTError(
                    "build-option", f"TensorRT-RTX {self.version} refuses the target {target}.", "Choose another one."
                )

    def portability(self, options: BuilderOptions, here: str | None) -> Portability:
        """The targets and all newer GPUs.

        The vendor's own check decides whether an engine really runs there (`refusal`).
        """
        del here
        return Portability(options.targets or (AMPERE,), True, "exact")

    def open_kernels(self, engine: Any, known: bytes | None) -> Any:
        """A runtime cache, filled with `known`.

        TensorRT-RTX refuses what another GPU, driver or version wrote, and the cache then stays empty.
        """
        kernels = engine.create_runtime_config().create_runtime_cache()
        if known is not None:
            kernels.deserialize(known)
        return kernels

    def kernel_bytes(self, kernels: Any) -> bytes:
        """The runtime cache as bytes."""
        return bytes(kernels.serialize())

    def make_context(self, engine: Any, kernels: Any) -> Any:
        """A context that takes its kernels from the cache, as far as they are there."""
        trt, config = self.trt, engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        # Kernels are compiled for each shape when it is first seen, so the same input always gives the same bits. LAZY
        # would change kernels between runs.
        config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        # The session captures graphs itself, copies included.
        config.cuda_graph_strategy = trt.CudaGraphStrategy.DISABLED
        config.set_runtime_cache(kernels)
        return engine.create_execution_context(config)

    def refusal(self, runtime: Any, data: bytes) -> str | None:
        """Why the vendor's check of the engine's header refuses it; None if it does not.

        A GPU that is not on the vendor's list is no reason here: 1.4 loads and runs engines on an H100 that its check
        calls unsupported, later versions do not. The loader decides.
        """
        validity, diagnostics = runtime.get_engine_validity(data)
        if validity != self.trt.EngineValidity.INVALID or int(diagnostics) == self._unsupported():
            return None
        return ", ".join(self._reasons(int(diagnostics) & ~self._unsupported())) or "no reason given"

    def unlisted(self, runtime: Any, data: bytes) -> bool:
        """Whether the check of the header says that this GPU is not supported."""
        validity, diagnostics = runtime.get_engine_validity(data)
        return validity == self.trt.EngineValidity.INVALID and bool(int(diagnostics) & self._unsupported())

    def _unsupported(self) -> int:
        return int(self.trt.EngineInvalidityDiagnostics.UNSUPPORTED_CC)

    def capture_refusal(self, context: Any, stream: int) -> str | None:
        """What TensorRT-RTX says itself; dynamic shapes or work on the host are reasons, for instance."""
        if context.is_stream_capturable(stream):
            return None
        return "TensorRT-RTX says that this engine cannot be captured for these shapes"

    def _reasons(self, diagnostics: int) -> list[str]:
        kinds = self.trt.EngineInvalidityDiagnostics
        flags = {name: int(getattr(kinds, name)) for name in dir(kinds) if name.isupper()}
        return [name.lower().replace("_", " ") for name, bit in flags.items() if bit and diagnostics & bit]


def _sm(capability: str) -> str:
    return "sm" + capability.replace(".", "")
