"""The common part of the TensorRT modules."""

from __future__ import annotations

from typing import Any

from matchrt.errors import MatchRTError
from matchrt.manifest import Portability
from matchrt.nvidia.dialect import BuilderOptions

AMPERE = "8.0"
_LEVELS = {"ampere-plus": "AMPERE_PLUS", "same-compute-capability": "SAME_COMPUTE_CAPABILITY"}


def configure_all(trt: Any, config: Any, options: BuilderOptions) -> None:
    """Sets what all backends call by the same name: workspace, optimisation level, TF32, layer names for `inspect`."""
    if options.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.tf32:
        config.set_flag(trt.BuilderFlag.TF32)
    else:
        config.clear_flag(trt.BuilderFlag.TF32)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED


def require_hardware_level(trt: Any, backend: str, options: BuilderOptions) -> None:
    """Raises `build-option` if this version lacks the hardware compatibility that is asked for."""
    if options.hardware == "exact" or hasattr(trt.HardwareCompatibilityLevel, _LEVELS[options.hardware]):
        return
    raise MatchRTError(
        "build-option",
        f"{backend} {trt.__version__} has no --hardware-compatible {options.hardware}.",
        "Use ampere-plus, or install TensorRT 10.9 or later.",
    )


def configure_compatibility(trt: Any, config: Any, options: BuilderOptions) -> None:
    """Sets hardware and version compatibility of full TensorRT, 10 and 11 alike."""
    if options.hardware != "exact":
        config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, _LEVELS[options.hardware])
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        # The engine would otherwise carry a runtime as host code, which sessions do not load.
        config.set_flag(trt.BuilderFlag.EXCLUDE_LEAN_RUNTIME)


def tensorrt_portability(options: BuilderOptions, here: str | None) -> Portability:
    """Where an engine of full TensorRT runs: on GPUs like the builder's, or on every one from Ampere on.

    here: the compute capability of the machine that builds; None without a GPU.
    """
    version = "newer" if options.version_compatible else "exact"
    if options.hardware == "ampere-plus":
        return Portability((AMPERE,), True, version)  # type: ignore[arg-type]
    return Portability((here,) if here else (), False, version)  # type: ignore[arg-type]


def refuse_targets(backend: str, options: BuilderOptions) -> None:
    """Raises `build-option` for --target: full TensorRT builds for the GPU on which it builds."""
    if options.targets:
        raise MatchRTError(
            "build-option",
            f"--target belongs to backend tensorrt_rtx; {backend} builds for the GPU of the machine that builds.",
            "Leave --target out, use --hardware-compatible ampere-plus, or build with --backend tensorrt_rtx.",
        )
