"""Refuses builds in int8 or fp8 that cannot succeed, before anything is built."""

from __future__ import annotations

from collections.abc import Sequence

from matchrt.building.calibration.options import CalibrationOptions
from matchrt.errors import MatchRTError
from matchrt.runtime.backend import get_backend

# The compute capability from which on GPUs have fp8.
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
                f"--calibration, --calibration-method, --keep-fp32 and --only-faster have no effect with {precision}.",
                "Add --precision int8, or leave these options out.",
            )
        return
    chosen = get_backend(backend)
    chosen.quantization(precision)
    if precision == "int8" or chosen.lowest_target is None:
        return
    below = [t for t in (targets or (chosen.lowest_target,)) if tuple(map(int, t.split("."))) < _FP8_FROM]
    if below:
        raise MatchRTError(
            "precision-target",
            f"fp8 needs a GPU of compute capability 8.9 or higher; this build is for {', '.join(below)}"
            f"{'' if targets else f', as {chosen.title} engines are without --target'}.",
            "Add --target sm89,sm120, or build with --precision fp16.",
        )
