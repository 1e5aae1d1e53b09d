"""What the TensorRT modules have in common."""

from __future__ import annotations

from typing import Any

from matchrt.errors import MatchRTError
from matchrt.manifest import Portability
from matchrt.nvidia.dialect import BuilderOptions

AMPERE = "8.0"
_LEVELS = {"ampere-plus": "AMPERE_PLUS", "same-compute-capability": "SAME_COMPUTE_CAPABILITY"}


def configure_all(trt: Any, config: Any, options: BuilderOptions) -> None:
    """What every backend calls by the same name: workspace, optimisation level, TF32, layer names for `inspect`."""
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
    """Raises `build-option` for a hardware compatibility that this version lacks."""
    if options.hardware == "exact" or hasattr(trt.HardwareCompatibilityLevel, _LEVELS[options.hardware]):
        return
    raise MatchRTError(
        "build-option",
        f"{backend} {trt.__version__} has no --hardware-compatible {options.hardware}.",
        "Use ampere-plus, or install TensorRT 10.9 or later.",
    )


def configure_compatibility(trt: Any, config: Any, options: BuilderOptions) -> None:
    """Hardware and version compatibility of full TensorRT, 10 and 11 alike."""
    if options.hardware != "exact":
        config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, _LEVELS[options.hardware])
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        # The engine would otherwise carry a runtime as host code, which sessions do not load.
        config.set_flag(trt.BuilderFlag.EXCLUDE_LEAN_RUNTIME)


def tensorrt_portability(options: BuilderOptions, here: str | None) -> Portability:
    """Full TensorRT builds for the GPU at hand, or for every one from Ampere on."""
    version = "newer" if options.version_compatible else "exact"
    if options.hardware == "ampere-plus":
        return Portability((AMPERE,), True, version)  # type: ignore[arg-type]
    return Portability((here,) if here else (), False, version)  # type: ignore[arg-type]


def refuse_targets(backend: str, options: BuilderOptions) -> None:
    """Raises `build-option`: full TensorRT builds on the GPU that it builds for."""
    if options.targets:
        raise MatchRTError(
            "build-option",
            f"--target belongs to backend tensorrt_rtx; {backend} builds for the GPU of the machine that builds.",
            "Leave --target out, use --hardware-compatible ampere-plus, or build with --backend tensorrt_rtx.",
        )
