"""Says before anything is built what a backend does with int8 and fp8."""

from __future__ import annotations

from collections.abc import Sequence

from matchrt.building.calibration.options import CalibrationOptions
from matchrt.errors import MatchRTError
from matchrt.export.quantization.styles import matrices_only
from matchrt.runtime.backend import get_backend

# Without --target, an RTX engine is for all GPUs from this compute capability on.
_RTX_LOWEST = "8.0"
_FP8_FROM = (8, 9)


def require_quantizable(
    precision: str, backend: str, targets: Sequence[str], calibration: CalibrationOptions | None = None
) -> None:
    """Refuses combinations that no build can satisfy.

    targets: compute capabilities that the engine is for, such as `8.9`; empty without --target.
    Errors: precision-backend, precision-target, calibration-unused, backend-unknown.
    """
    if precision not in ("int8", "fp8"):
        if calibration is not None and calibration != CalibrationOptions():
            raise MatchRTError(
                "calibration-unused",
                f"--calibration, --calibration-method and --keep-fp32 have no effect with {precision}.",
                "Add --precision int8, or leave these options out.",
            )
        return
    get_backend(backend).quantization(precision)
    if precision == "int8":
        return
    below = [target for target in (targets or (_RTX_LOWEST,)) if tuple(map(int, target.split("."))) < _FP8_FROM]
    if backend == "tensorrt_rtx" and below:
        raise MatchRTError(
            "precision-target",
            f"fp8 needs a GPU of compute capability 8.9 or higher; this build is for {', '.join(below)}"
            f"{'' if targets else ', as RTX engines are without --target'}.",
            "Add --target sm89,sm120, or build with --precision fp16.",
        )


def advice(precision: str, backend: str, version: str | None = None) -> str | None:
    """What users should know before they build this precision for this backend; None if there is nothing to say.

    version: of the backend; None if it is not known.
    """
    if precision == "int8" and backend == "tensorrt_rtx" and matrices_only(version):
        return (
            f"TensorRT-RTX {version} stops at int8 convolutions: only products of matrices will be int8, and these "
            "build only on a machine with a GPU. Use --precision fp16, a later TensorRT-RTX (1.7.1 builds int8 "
            "convolutions), or --backend tensorrt."
        )
    if precision == "int8" and backend == "tensorrt_rtx":
        return (
            "TensorRT-RTX builds this int8 graph, but its support matrix (1.0 to 1.5) lists int8 only for weights of "
            "matrix products. int8 convolutions and activations may be slower than fp16 there. Measure with `matchrt "
            "bench`; otherwise use --precision fp16, fp8 from compute capability 8.9 on, or --backend tensorrt."
        )
    if precision == "fp8":
        return "fp8 is experimental: only products of matrices are fp8, and convolutions stay in fp16."
    return None
