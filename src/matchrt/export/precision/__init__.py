"""Precision is written into the graph: Casts, fp16 weights, Q/DQ. TensorRT 10, 11 and RTX take the types as written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matchrt.errors import MatchRTError

if TYPE_CHECKING:
    import onnx

    from matchrt.manifest import PassRecord

PRECISIONS: tuple[str, ...] = ("fp32", "fp16", "int8", "fp8")
# Precisions that need calibration. `matchrt.building.calibration` makes them, and not `apply`.
QUANTIZED: tuple[str, ...] = ("int8", "fp8")


def require_precision(precision: str) -> None:
    """Raises `precision-unknown`, which lists the known ones, if there is no such precision."""
    if precision not in PRECISIONS:
        raise MatchRTError(
            "precision-unknown", f"There is no precision '{precision}'.", f"Known: {', '.join(PRECISIONS)}."
        )


def apply(model: onnx.ModelProto, precision: str, family: str) -> tuple[onnx.ModelProto, tuple[PassRecord, ...]]:
    """The model in fp16, and what each rule did. For "fp32" it is the model itself, without records.

    The given model is not changed, inputs and outputs keep their types, and applying again changes nothing.
    Errors: `precision-unknown`, `precision-family` (no rules for the family), `precision-overflow` (a weight beyond
    fp16), `precision-unruled`, `precision-rule`, `pass-requirement`, `pass-invalid`.
    """
    from matchrt.export.precision.families import model_to_fp16

    require_precision(precision)
    if precision in QUANTIZED:
        raise MatchRTError(
            "precision-unknown",
            f"{precision} is not written without ranges.",
            f"Use `matchrt build --precision {precision}` or matchrt.building, which calibrate; or fp16 or fp32.",
        )
    return model_to_fp16(model, family) if precision == "fp16" else (model, ())
